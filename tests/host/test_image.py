"""The guest image, built for real: what is in it, and that its programs find what they need."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest

from image import bootstrap, cpio, disk, elf, layers, wheels
from image.__main__ import build
from image.chroot import Chroot, unpacked
from image.contents import IMPORTS, PYTHON
from image.errors import BuildError
from image.files import Cache, cache_directory, run, sha256_of
from image.modules import Index, name_of
from image.packages import Apt
from image.tree import Tree


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("image")
    build(directory, cache_directory())
    return directory


@pytest.fixture(scope="module")
def tree(output: Path) -> Tree:
    return cpio.parse(run(["zstd", "-q", "-d", "-c", output / "kuasar.initrd"]))


@pytest.fixture(scope="module")
def chroot(tree: Tree) -> Iterator[Chroot]:
    with unpacked(tree) as place:
        yield place


def test_two_builds_give_equal_files(output: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    for downloads in ("debs", "wheels"):
        shutil.copytree(cache_directory() / downloads, cache / downloads)
    build(tmp_path / "again", cache)
    for path in output.iterdir():
        assert sha256_of(tmp_path / "again" / path.name) == sha256_of(path), path.name


def test_the_manifest_describes_what_lies_beside_it(output: Path) -> None:
    manifest = json.loads((output / "manifest.json").read_text())
    for name, facts in manifest["outputs"].items():
        assert facts["sha256"] == sha256_of(output / name)
    assert {"crun", "python3.11-minimal"} <= {package["name"] for package in manifest["packages"]}
    assert all(len(package["sha256"]) == 64 for package in manifest["packages"])


def test_the_initrd_fits_its_budget(output: Path) -> None:
    for name in ("kuasar.initrd", "kuasar.initrd.gz"):
        assert (output / name).stat().st_size <= 15_000_000


def test_the_archive_is_readable_by_another_implementation(tree: Tree, tmp_path: Path) -> None:
    command = ["busybox", "cpio", "-i", "-m", "--quiet"]
    subprocess.run(command, input=cpio.archive(tree), cwd=tmp_path, check=True)
    for path, node in tree.files():
        assert (tmp_path / path).read_bytes() == node.data
        assert (tmp_path / path).stat().st_mode == node.mode


def test_the_initrd_for_old_kernels_has_the_same_content(output: Path, tree: Tree) -> None:
    archive = gzip.decompress((output / "kuasar.initrd.gz").read_bytes())
    assert cpio.parse(archive).nodes == tree.nodes


def test_the_disk_is_sound_and_a_multiple_of_128_mib(output: Path) -> None:
    image = output / "kuasar.img"
    assert image.stat().st_size % disk.MULTIPLE == 0
    run(["e2fsck", "-f", "-n", f"{image}?offset={disk.ROOT}"])


def test_the_disk_has_the_content_of_the_initrd(output: Path, tree: Tree, tmp_path: Path) -> None:
    place = f"{output / 'kuasar.img'}?offset={disk.ROOT}"
    run(["debugfs", "-R", f"rdump / {tmp_path}", place])
    for path, node in tree.nodes.items():
        copy = tmp_path / path
        if node.is_file:
            assert copy.read_bytes() == node.data, path
        if node.is_link:
            assert os.fsencode(copy.readlink()) == node.data, path
        elif node.is_file or node.is_directory:
            # rdump leaves out the sticky bit.
            assert copy.stat().st_mode & 0o777 == node.mode & 0o777, path
            assert (copy.stat().st_uid, copy.stat().st_mtime) == (0, 0), path


def test_the_disks_helper_has_all_that_its_init_runs(output: Path) -> None:
    helper = cpio.parse(run(["zstd", "-q", "-d", "-c", output / "kuasar-boot.initrd"]))
    script = helper["init"].data.decode()
    for command in bootstrap.COMMANDS:
        assert command in script
    for module in helper["root.list"].data.decode().split():
        assert module in helper
    with unpacked(helper) as chroot:
        chroot.run("/bin/sh", "-n", "/init")
        applets = chroot.run("/usr/bin/busybox", "--list").decode().split()
    assert set(bootstrap.COMMANDS) <= set(applets)


def test_only_what_was_asked_for_lies_beside_the_manifest(output: Path, tmp_path: Path) -> None:
    (tmp_path / "kuasar.img").write_text("of an older build")
    build(tmp_path, cache_directory(), ["vmlinux", "kuasar.initrd"])
    assert {path.name for path in tmp_path.iterdir()} == {
        *("vmlinux", "kuasar.initrd", "manifest.json")
    }
    assert sha256_of(tmp_path / "kuasar.initrd") == sha256_of(output / "kuasar.initrd")


def test_the_tools_of_the_debug_flavour_run() -> None:
    cache, apt = Cache(cache_directory()), Apt(cache_directory() / "debs")
    layer = layers.userland_layer(cache, apt, wheels.fetch(cache), "debug")
    with unpacked(layer.tree()) as chroot:
        for command in (
            *("ip -V", "ss -V", "mount --version", "dmesg --version", "curl --version"),
            *("iptables --version", "ip6tables --version", "iptables-legacy --version"),
            "strace -V",
        ):
            output = chroot.run("/bin/sh", "-c", command)
            assert b"BusyBox" not in output, command
        assert chroot.run("/bin/sh", "-c", "command -v ps") == b"/usr/bin/ps\n"


@pytest.mark.parametrize(
    "unwanted",
    ["*.py", "*.h", "*.c", "*.a", "*/tests", "*/python3.11/test", "*/idlelib", "*/ensurepip"],
)
def test_only_what_is_used_travels(tree: Tree, unwanted: str) -> None:
    assert tree.matching(unwanted) == []


def test_no_link_leads_nowhere(tree: Tree) -> None:
    for path, node in tree.nodes.items():
        if node.is_link:
            target = PurePosixPath("/", path).parent / node.data.decode()
            place = os.path.normpath(target).removeprefix("/")
            assert place in tree, path


def test_no_path_of_the_building_machine_travels(tree: Tree) -> None:
    checkout = Path(__file__).parents[2]
    # The checkout's own path may be as short as `/src`, which wheels hold for reasons of their own.
    places = [bytes(checkout / name) for name in ("kuasar_agent", "image", "build", ".venv")]
    for path, node in tree.files():
        assert not any(place in node.data for place in places), path


def test_the_places_that_the_host_counts_on_are_there(tree: Tree) -> None:
    for path in (
        "usr/bin",
        "usr/sbin",
        "usr/lib",
        "dev",
        "sys",
        "tmp",
        "proc",
        "etc",
        "run",
        "var",
    ):
        assert tree[path].is_directory, path
    for path, target in (("bin", b"usr/bin"), ("var/run", b"../run"), ("init", b"/sbin/init")):
        assert tree[path].data == target
    assert tree["etc/resolv.conf"].is_file
    assert tree["etc/resolv.conf"].data == b""
    assert tree["sbin/init"].mode & 0o111 == 0o111
    interpreter = tree["sbin/init"].data.splitlines()[0].split()[0].removeprefix(b"#!").decode()
    assert interpreter.removeprefix("/") in tree


def test_every_program_finds_its_libraries(tree: Tree, chroot: Chroot) -> None:
    programs = [path for path, node in tree.files() if elf.is_elf(node.data)]
    for path in programs:
        if "/modules/" not in path:
            chroot.run("/lib64/ld-linux-x86-64.so.2", "--list", f"/{path}")


def test_python_imports_everything_without_help_from_its_environment(chroot: Chroot) -> None:
    modules = ", ".join([*IMPORTS, "kuasar_agent.ttrpc.status"])
    assert chroot.run(f"/{PYTHON}", "-I", "-c", f"import {modules}; print('ok')") == b"ok\n"


def test_digests_and_uuids_work_without_openssl_and_libuuid(chroot: Chroot) -> None:
    script = (
        "import hashlib, hmac, uuid; uuid.uuid4();"
        "hmac.new(b'k', b'm', 'sha256').digest(); hashlib.md5(); hashlib.blake2b();"
        "print(hashlib.sha256(b'abc').hexdigest()[:8])"
    )
    assert chroot.run(f"/{PYTHON}", "-I", "-c", script) == b"ba7816bf\n"


def test_crun_runs(chroot: Chroot) -> None:
    # crun makes a sealed copy of itself, for which it needs /proc.
    script = 'mount -t proc proc "$0/proc" && exec chroot "$0" /usr/bin/crun --version'
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]
    assert b"crun version" in run([*command, chroot.root])


def test_shells_and_everyday_commands_run(chroot: Chroot) -> None:
    script = "set -e; command -v ls mount ip vi dmesg nsenter; echo ok"
    for shell in ("/bin/sh", "/bin/bash"):
        output = chroot.run(shell, "-c", script)
        assert output.endswith(b"ok\n")


def test_a_module_is_listed_after_what_it_needs(tree: Tree, chroot: Chroot) -> None:
    (release,) = {path.split("/")[3] for path in tree.matching("usr/lib/modules/*/modules.dep")}
    directory = f"/lib/modules/{release}/"
    index = Index.read(chroot.root / f"usr{directory}")
    first = lines(tree, "load")
    for name in ("load", "9p", "virtiofs", "late"):
        loaded = set() if name == "load" else set(first)
        for line in lines(tree, name):
            assert line in tree
            path = line.removeprefix(directory)
            assert {directory + need for need in index.dependencies[path]} <= loaded, line
            loaded.add(line)


def lines(tree: Tree, name: str) -> list[str]:
    (path,) = tree.matching(f"usr/lib/modules/*/{name}.list")
    return tree[path].data.decode().splitlines()


def test_no_container_can_reach_the_agent_through_vsock_loopback(tree: Tree) -> None:
    names = {name_of(path) for path in tree.matching("*.ko")}
    assert "vmw_vsock_virtio_transport" in names
    assert "vsock_loopback" not in names


def test_a_missing_package_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="no-such-package") as caught:
        Apt(tmp_path, refresh=False).obtain(["bash", "no-such-package"])
    assert "\n" not in str(caught.value)


def test_no_space_is_one_clear_line_and_nothing_looks_finished(tmp_path: Path) -> None:
    # Room for the kernel and the initrds, but not for the disk.
    place = tmp_path / "full"
    place.mkdir()
    script = (
        'mount -t tmpfs -o size=110M full "$0" && "$@" --output "$0";'
        ' status=$?; ls -A "$0"; exit $status'
    )
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, str(place)]
    done = subprocess.run(
        [*command, sys.executable, "-m", "image"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert done.returncode == 1
    (complaint,) = [line for line in done.stderr.splitlines() if not line.startswith("==> ")]
    assert complaint.startswith("image: ")
    assert done.stdout.split() == ["kuasar.initrd", "kuasar.initrd.gz", "vmlinux"]

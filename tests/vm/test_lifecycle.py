"""A container's life in a microVM, how microVMs end, and what of them can be used outside."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kuasar_agent.api import sandbox_pb2
from kuasar_agent.ttrpc import ConnectionClosed
from kuasar_host.config import Disk, Nic
from kuasar_host.errors import HostError
from kuasar_host.microvm import MicroVM
from kuasar_host.sandbox import Sandbox, is_running
from tests.support.guest import IMAGE, Guest, config
from tests.support.guest_lifecycle import check_lifecycle
from tests.support.timeouts import GUEST

BOOT = ["--kernel", str(IMAGE / "vmlinux"), "--initrd", str(IMAGE / "kuasar.initrd")]


def command(*args: str) -> list[str]:
    return [sys.executable, "-m", "kuasar_debug", *args]


def test_execs_and_pauses_in_a_guest(guest: Guest) -> None:
    check_lifecycle(guest)


@pytest.fixture(scope="module")
def detached(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The directory of a microVM that another process keeps."""
    directory = tmp_path_factory.mktemp("detached")
    subprocess.run(command("boot", "--dir", str(directory), "--detach", *BOOT), check=True)
    yield directory
    if is_running(directory):
        subprocess.run(command("stop", "--dir", str(directory)), check=True)


def test_a_container_runs_in_a_microvm_that_runs_already(detached: Path) -> None:
    done = subprocess.run(
        command("run", "--dir", str(detached), "--", "sh", "-c", "echo out; echo err >&2; exit 7"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=GUEST,
    )
    assert (done.returncode, done.stdout) == (7, b"out\n"), done.stderr
    assert b"booting" not in done.stderr
    assert b"serving" in done.stderr
    assert is_running(detached)
    # The bundle is gone with the container.
    assert list((detached / "shared").iterdir()) == []


def test_a_command_that_does_not_exist_is_one_clear_line(detached: Path) -> None:
    done = subprocess.run(
        command("run", "--dir", str(detached), "--", "nosuchcmd"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=GUEST,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert b"nosuchcmd" in line


def test_every_byte_passes_in_both_directions(detached: Path) -> None:
    data = os.urandom(2 << 20)
    done = subprocess.run(
        command("run", "--dir", str(detached), "--", "cat"),
        input=data,
        capture_output=True,
        timeout=GUEST,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == data


def test_ctrl_c_kills_the_container(detached: Path) -> None:
    with subprocess.Popen(
        command("run", "--dir", str(detached), "--", "sh", "-c", "echo started; sleep 1000"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"started\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(GUEST) == 128 + signal.SIGKILL


def test_what_serves_a_microvm_dies_with_the_process_that_keeps_it(detached: Path) -> None:
    keeper = int((detached / "pid").read_text())
    children = Path(f"/proc/{keeper}/task/{keeper}/children").read_text().split()
    assert len(children) == 3
    handles = [os.pidfd_open(int(child)) for child in children]
    os.kill(keeper, signal.SIGKILL)
    for handle in handles:
        ready, _, _ = select.select([handle], [], [], GUEST)
        assert ready
        os.close(handle)
    assert not is_running(detached)
    with pytest.raises(HostError, match="no microVM serves there"):
        Sandbox.attach(detached)


def test_a_guest_that_logs_only_warnings_is_ready_and_takes_devices(tmp_path: Path) -> None:
    image = tmp_path / "disk,raw"
    image.write_bytes(b"plugged".ljust(1 << 20, b"\0"))
    plugged, card = Disk("d1", image, readonly=True), Nic("n1", "52:54:00:00:00:01")
    options = config(tmp_path / "vm", root_ports=2, append="task.log_level=warn")
    with MicroVM.boot(options) as vm, vm.hotplug() as devices:
        assert vm.console.serving() == {}
        assert vm.boot_report().serving_ms > 0
        devices.add_disk(plugged, "rp1")
        devices.add_nic(card, "rp2")
        script = "until [ -e /sys/class/block/vda ] && ls /sys/class/net | grep -v lo; do :; done"
        # The guest's own network namespace, and its /sys.
        sandbox = Guest(vm).sandbox
        request = sandbox_pb2.ExecVMProcessRequest(command=f"{script}; head -c 7 /dev/vda")
        assert "plugged" in sandbox.exec_vm_process(request, timeout=GUEST).out
        devices.remove_disk(plugged)
        devices.remove_nic(card)
        request.command = "ls /sys/class/block /sys/class/net"
        assert "vda" not in sandbox.exec_vm_process(request, timeout=GUEST).out


def test_a_guest_that_panics_ends_the_boot_with_a_clear_line(tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"\Athe guest panicked\n(.*\n)*.*Kernel panic"):
        MicroVM.boot(config(tmp_path, append="rdinit=/none"))
    assert not is_running(tmp_path)


def test_qemu_that_does_not_start_is_quoted(tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"\AQEMU ended with status 1\n(.*\n)*qemu-system"):
        MicroVM.boot(config(tmp_path, cpus=100_000, accelerator="tcg"))


def test_a_directory_with_a_name_too_long_for_sockets_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="too long for the unix sockets"):
        MicroVM.boot(config(tmp_path / ("d" * 100)))


def test_the_guest_serves_again_after_a_reset(tmp_path: Path) -> None:
    # A comma separates QEMU's options: in a name it must do no harm.
    with MicroVM.boot(config(tmp_path / "with, comma", root_ports=2)) as vm:
        with vm.qmp() as qmp:
            qmp.execute("set-action", reboot="reset")
            ports = [bus for bus in qmp.execute("query-pci") if bus["bus"] == 0]
            bridges = [dev for dev in ports[0]["devices"] if "pci_bridge" in dev]
            assert len(bridges) == 2
            first = Guest(vm)
            qmp.execute("system_reset")
            qmp.wait_event("RESET", GUEST)
        with pytest.raises(ConnectionClosed):
            first.check()
        vm.connect(GUEST).close()
        assert Guest(vm).run("echo", "back").stdout == b"back\n"

"""A guest that tells about itself: traces over vsock, the dump, stalls, leaks, its start-up."""

from __future__ import annotations

import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import gevent
import pytest

from image import tracing
from image.cpio import archive
from image.tree import Node
from kuasar_debug import timeline_svg
from kuasar_host import timeline
from kuasar_host.microvm import MicroVM
from kuasar_host.serial_log import parse_line
from kuasar_host.sockets import listen
from tests.support.guest import IMAGE, Guest, config
from tests.support.otlp_receiver import Receiver, Span, assert_nested
from tests.support.timeouts import TIMEOUT
from tests.support.waiting import eventually

TASK = "containerd.task.v2.Task"
OTLP = 4318

# SIGALRM keeps the hub until the next one: what runs in a handler runs in the hub's thread.
INIT = b"""#!/usr/bin/python3.11 -IS
import sys
sys.path.append("/usr/lib/python3/dist-packages")
import signal, time
from kuasar_agent.init import main
kept = False
def keep_the_hub(*_):
    global kept
    kept = not kept
    while kept:
        time.sleep(0.05)
signal.signal(signal.SIGALRM, keep_the_hub)
main()
"""


@pytest.fixture(scope="module")
def vm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MicroVM]:
    """A guest that can trace, and whose hub can be kept."""
    directory = tmp_path_factory.mktemp("observe")
    tree = tracing.build()
    tree.add("init-observe", Node(stat.S_IFREG | 0o755, INIT))
    extra = directory / "extra.cpio"
    extra.write_bytes(archive(tree))
    options = config(
        directory / "vm",
        initrd=[extra, IMAGE / "kuasar.initrd"],
        append="rdinit=/init-observe task.log_format=json",
        vsock="user",
    )
    with MicroVM.boot(options) as vm:
        yield vm


@pytest.fixture(scope="module")
def guest(vm: MicroVM) -> Guest:
    return Guest(vm)


@pytest.fixture
def receiver(vm: MicroVM) -> Iterator[Receiver]:
    # Where the hypervisor hands over what the guest dials on CID 2.
    listener = listen(Path(f"{vm.vsock}_{OTLP}"))
    with Receiver(gevent.socket.socket(fileno=listener.detach())).serving() as receiver:
        yield receiver


def lines(vm: MicroVM, msg: str) -> list[dict[str, str]]:
    text = (vm.directory / "console.log").read_text(errors="replace")
    found = [parse_line(line) for line in text.splitlines()]
    return [fields for fields in found if fields.get("msg") == msg]


def calls_for(receiver: Receiver, create: Span) -> dict[str, Span]:
    """The calls for the container of `create`, by their methods."""
    id = create.attributes["container.id"]
    spans = [span for span in receiver.spans if span.attributes.get("container.id") == id]
    return {span.attributes["rpc.method"]: span for span in spans}


def signal_init(guest: Guest, script: str) -> None:
    result = guest.run("sh", "-c", script, guest_pids=True)
    assert result.status == 0, result


def test_a_trace_arrives_over_vsock_while_it_is_turned_on(
    vm: MicroVM, guest: Guest, receiver: Receiver
) -> None:
    signal_init(guest, "kill -USR1 1")
    assert eventually(lambda: lines(vm, "tracing"), bool, TIMEOUT)[-1]["on"] == "true"
    assert guest.run("echo", "hello").stdout == b"hello\n"
    # The container that sent the signal was created untraced.
    create = eventually(lambda: receiver.named(f"{TASK}/Create"), bool, TIMEOUT)[0]
    life = eventually(lambda: calls_for(receiver, create), lambda got: "Delete" in got, TIMEOUT)
    for name in ("Create", "Start", "Wait", "Delete"):
        assert_nested(receiver, life[name])
    parts = {span.name for span in receiver.children(create)}
    assert {"load_bundle", "storages", "stdio", "runtime create"} <= parts
    (boot,) = receiver.named("boot")
    assert_nested(receiver, boot)
    steps = [span.name for span in receiver.children(boot)]
    assert {"boot mounts", "boot modules", "boot imports", "boot serve"} <= set(steps)
    signal_init(guest, "kill -USR1 1")
    assert eventually(lambda: lines(vm, "tracing"), lambda got: len(got) == 2)[-1]["on"] == "false"
    before = len(receiver.named(f"{TASK}/Create"))
    guest.run("true")
    guest.assert_no_leaks()
    assert len(receiver.named(f"{TASK}/Create")) == before


def test_who_keeps_the_hub_is_named_and_a_dump_comes_through(vm: MicroVM, guest: Guest) -> None:
    signal_init(guest, "kill -ALRM 1; sleep 4; kill -USR2 1; sleep 1; kill -ALRM 1")
    # A slow machine may have had stalls of its own before.
    (blocked,) = eventually(
        lambda: [it for it in lines(vm, "the hub is blocked") if "keep_the_hub" in it["stack"]],
        bool,
        TIMEOUT,
    )
    again, *_ = eventually(
        lambda: [
            it for it in lines(vm, "the hub runs again") if float(it["ts"]) > float(blocked["ts"])
        ],
        bool,
        TIMEOUT,
    )
    for kind in ("greenlet", "thread", "container", "descriptor", "mount"):
        dumped = lines(vm, f"dump: {kind}")
        assert dumped
        assert all(float(blocked["ts"]) < float(fields["ts"]) for fields in dumped)
        assert all(float(fields["ts"]) < float(again["ts"]) for fields in dumped)
    guest.check()


def test_nothing_is_left_when_containers_came_and_went(vm: MicroVM, guest: Guest) -> None:
    guest.run("true")
    guest.assert_no_leaks()
    done = debug("leaks", "--dir", str(vm.directory))
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    page = debug("metrics", "--dir", str(vm.directory)).stdout
    assert 'kuasar_agent_boot_step_seconds{step="modules"}' in page
    assert 'kuasar_agent_containers{state="running"} 0' in page


def test_start_up_is_drawn(vm: MicroVM, tmp_path: Path) -> None:
    read = timeline.read(vm)
    names = [bar.name for bar in read.bars]
    assert names[:2] == ["QEMU and its firmware", "kernel"]
    assert {"Python's own start", "unpacking the initrd", "modules", "imports"} <= set(names)
    for bar, following in zip(read.bars, read.bars[1:], strict=False):
        assert bar.start <= following.start + 0.5
    assert 0 < read.serving < read.answered
    path = tmp_path / "boot.svg"
    timeline_svg.draw(read, path)
    assert ElementTree.parse(path).getroot().tag.endswith("svg")


def debug(*args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kuasar_debug", *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)

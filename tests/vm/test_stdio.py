"""Standard streams through a real guest: vsock, and virtio-serial ports plugged in late."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest
from gevent.socket import AF_UNIX, SHUT_WR, socket

from kuasar_agent.api import task_pb2
from kuasar_agent.ttrpc import dial
from kuasar_host.microvm import MicroVM
from kuasar_host.qmp import Qmp
from kuasar_host.sockets import short_path
from tests.support.guest import Guest, config
from tests.support.streams import open_stream, receive, send, url
from tests.support.timeouts import GUEST

MIB = 1 << 20
SIZE = int(os.environ.get("KUASAR_TEST_VM_MIB", 32)) * MIB
"""Bytes of the long transfers."""


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    with MicroVM.boot(config(tmp_path_factory.mktemp("vm"), root_ports=1)) as vm:
        with vm.qmp() as qmp:
            qmp.execute("device_add", driver="virtio-serial-pci", id="serial", bus="rp1")
        yield Guest(vm)
        print("console:", vm.console.tail(), sep="\n")


@pytest.fixture(autouse=True)
def hangs_end() -> Iterator[None]:
    with gevent.Timeout(GUEST):
        yield


def create(guest: Guest, *command: str, **urls: str) -> str:
    id = guest.bundle(command)
    request = task_pb2.CreateTaskRequest(id=id, **urls)  # type: ignore[arg-type]
    guest.task.create(request, timeout=GUEST)
    return id


def start(guest: Guest, id: str) -> None:
    guest.task.start(task_pb2.StartRequest(id=id), timeout=GUEST)


def finish(guest: Guest, id: str) -> int:
    exit = guest.task.wait(task_pb2.WaitRequest(id=id), timeout=GUEST)
    guest.task.delete(task_pb2.DeleteRequest(id=id), timeout=GUEST)
    return int(exit.exit_status)


def port(guest: Guest, number: int) -> socket:
    return dial(guest.vm.address(number), GUEST)


def read_all(peer: socket) -> bytes:
    chunks = []
    while data := peer.recv(MIB):
        chunks.append(data)
    peer.close()
    return b"".join(chunks)


def plug_port(qmp: Qmp, name: str, path: Path) -> None:
    """A virtio-serial port whose host side is the unix socket at `path`, relative to QEMU."""
    address = {"type": "unix", "data": {"path": path.name}}
    backend = {"type": "socket", "data": {"addr": address, "server": True, "wait": False}}
    qmp.execute("chardev-add", id=f"c-{name}", backend=backend)
    qmp.execute(
        "device_add",
        driver="virtserialport",
        id=name,
        bus="serial.0",
        chardev=f"c-{name}",
        name=name,
    )


def connect(path: Path) -> socket:
    peer = socket(AF_UNIX)
    with short_path(path) as name:
        peer.connect(name)
    return peer


def test_ports_that_are_plugged_while_the_container_is_created_carry_its_streams(
    guest: Guest,
) -> None:
    data = random.Random(1).randbytes(2 * MIB)
    names = ("chardev7", "chardev8")
    creating = gevent.spawn(create, guest, "cat", stdin=names[0], stdout=names[1])
    paths = [guest.vm.directory / f"{name}.sock" for name in names]
    with guest.vm.qmp() as qmp:
        for name, path in zip(names, paths, strict=True):
            plug_port(qmp, name, path)
    id = creating.get()
    start(guest, id)
    # A host that connects and goes again was only probing.
    connect(paths[0]).close()
    took = gevent.spawn(read_exactly, connect(paths[1]), len(data))
    keys = connect(paths[0])
    keys.sendall(data)
    assert hashlib.sha256(took.get()).digest() == hashlib.sha256(data).digest()
    keys.close()
    assert finish(guest, id) == 0


def read_exactly(peer: socket, size: int) -> bytes:
    got = bytearray()
    while len(got) < size and (data := peer.recv(MIB)):
        got += data
    return bytes(got)


def test_a_long_output_and_input_pass_through_vsock(guest: Guest) -> None:
    source = random.Random(2)
    data = b"".join(source.randbytes(MIB) for _ in range(SIZE // MIB))
    id = create(guest, "cat", stdin="vsock://3:41000", stdout="hvsock:///x:41001")
    took = gevent.spawn(read_all, port(guest, 41001))
    # A connection that goes without a word does not end the input.
    port(guest, 41000).close()
    start(guest, id)
    with port(guest, 41000) as keys:
        keys.sendall(data)
        keys.shutdown(SHUT_WR)
        assert hashlib.sha256(took.get()).digest() == hashlib.sha256(data).digest()
    assert finish(guest, id) == 0


def test_readers_in_turn_have_the_whole_between_them(guest: Guest) -> None:
    id = create(guest, "cat", stdin="vsock://3:41005", stdout="vsock://3:41006")
    start(guest, id)
    with port(guest, 41005) as keys:
        for number in range(5):
            line = f"line {number}\n".encode() * 100
            with port(guest, 41006) as reader:
                keys.sendall(line)
                assert read_exactly(reader, len(line)) == line
        keys.shutdown(SHUT_WR)
        assert read_all(port(guest, 41006)) == b""
    assert finish(guest, id) == 0


def test_input_and_output_pass_through_the_streaming_service(guest: Guest) -> None:
    data = random.Random(3).randbytes(MIB)
    writer, reader = (open_stream(guest.client, f"vm-{name}") for name in ("stdin", "stdout"))
    id = create(guest, "cat", stdin=url("vm-stdin"), stdout=url("vm-stdout"))
    start(guest, id)
    took = gevent.spawn(receive, reader)
    send(writer, data)
    assert took.get() == data
    assert finish(guest, id) == 0


def test_each_of_many_short_processes_is_heard(guest: Guest) -> None:
    id = create(
        guest,
        *("sh", "-c", "i=0; while [ $i -lt 20 ]; do busybox echo $i; i=$((i+1)); done"),
        stdout="vsock://3:41002",
    )
    start(guest, id)
    assert read_all(port(guest, 41002)).split() == [str(n).encode() for n in range(20)]
    assert finish(guest, id) == 0


def test_a_terminal_works_in_the_guest(guest: Guest) -> None:
    id = guest.bundle(["sh", "-c", "stty size; read x; echo got $x"])
    guest.task.create(
        task_pb2.CreateTaskRequest(
            id=id, terminal=True, stdin="vsock://3:41003", stdout="vsock://3:41004"
        ),
        timeout=GUEST,
    )
    guest.task.resize_pty(task_pb2.ResizePtyRequest(id=id, width=100, height=30), timeout=10)
    start(guest, id)
    with port(guest, 41003) as keys:
        keys.sendall(b"hello\n")
        screen = read_all(port(guest, 41004))
    assert b"30 100\r\n" in screen
    assert b"got hello\r\n" in screen
    assert finish(guest, id) == 0


def test_a_reader_of_a_port_that_leaves_when_wait_returns_has_everything(guest: Guest) -> None:
    size = 3 * MIB
    for number in range(30000, 30005):
        id = create(guest, "head", "-c", str(size), "/dev/zero", stdout=f"vsock://3:{number}")
        got = 0

        def take(peer: socket) -> None:
            nonlocal got
            while data := peer.recv(64 * 1024):
                got += len(data)

        with port(guest, number) as peer:
            reading = gevent.spawn(take, peer)
            waiting = gevent.spawn(guest.task.wait, task_pb2.WaitRequest(id=id), timeout=GUEST)
            start(guest, id)
            waiting.get()
            reading.kill()
        assert got == size
        guest.task.delete(task_pb2.DeleteRequest(id=id), timeout=GUEST)

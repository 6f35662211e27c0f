"""Standard streams over ports, FIFOs and files, with a real container at the other end."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent.socket import SHUT_WR, socket

from kuasar_agent.ttrpc import Code, StatusError
from tests.support.agent import Agent, read_all, send_all
from tests.support.timeouts import TIMEOUT
from tests.support.waiting import eventually

BIG = int(os.environ.get("KUASAR_TEST_BIG", 1 << 30))
"""Bytes of the long test; fewer show the same on a slow machine."""

MANY = int(os.environ.get("KUASAR_TEST_MANY", 10_000))
"""Short-lived processes of the test with the many lines."""

SOCKET = 256 * 1024
"""A socket holds no more than this: net.core.wmem_default is less."""


@pytest.fixture(autouse=True)
def hangs_end() -> Iterator[None]:
    with gevent.Timeout(300):
        yield


def output(agent: Agent) -> tuple[int, str]:
    port = agent.port()
    return port, f"vsock://3:{port}"


def put(agent: Agent, name: str, size: int) -> bytes:
    """A file of random bytes in the containers' root."""
    data = os.urandom(size)
    (agent.rootfs / name).write_bytes(data)
    return data


def end(agent: Agent, id: str) -> None:
    agent.kill(id, signal.SIGKILL)
    agent.wait(id)
    agent.delete(id)


def fifo(agent: Agent, name: str) -> str:
    path = str(agent.ports.parent / name)
    os.mkfifo(path)
    return path


def read_fifo(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def take_from_fifo(path: str, most: int) -> bytes:
    """As a reader does who waits for the writer, reads once and goes."""
    fd = os.open(path, os.O_RDONLY)
    try:
        return os.read(fd, most)
    finally:
        os.close(fd)


def test_a_long_output_arrives_byte_for_byte(agent: Agent) -> None:
    pattern = put(agent, "block", 1 << 20)
    repeats = BIG >> 20
    port, url = output(agent)
    script = f"i=0; while [ $i -lt {repeats} ]; do cat /block; i=$((i+1)); done"
    id = agent.run("sh", "-c", script, stdout=url)
    wanted, got, size = hashlib.sha256(), hashlib.sha256(), 0
    for _ in range(repeats):
        wanted.update(pattern)
    with agent.dial(port) as peer:
        while data := peer.recv(1 << 18):
            got.update(data)
            size += len(data)
    assert (size, got.digest()) == (repeats << 20, wanted.digest())
    agent.wait(id)
    agent.delete(id)


def test_interleaved_streams_do_not_mix(agent: Agent) -> None:
    (out, out_url), (err, err_url) = output(agent), output(agent)
    script = "i=0; while [ $i -lt 5000 ]; do echo out $i; echo err $i >&2; i=$((i+1)); done"
    id = agent.run("sh", "-c", script, stdout=out_url, stderr=err_url)
    took = [gevent.spawn(read_all, agent.dial(port)) for port in (out, err)]
    for name, greenlet in zip(("out", "err"), took, strict=True):
        wanted = "".join(f"{name} {i}\n" for i in range(5000))
        assert greenlet.get(timeout=TIMEOUT) == wanted.encode()
    agent.wait(id)
    agent.delete(id)


def test_each_of_many_short_processes_is_heard(agent: Agent) -> None:
    port, url = output(agent)
    script = f"i=0; while [ $i -lt {MANY} ]; do busybox echo line $i; i=$((i+1)); done"
    id = agent.run("sh", "-c", script, stdout=url)
    wanted = "".join(f"line {i}\n" for i in range(MANY))
    assert read_all(agent.dial(port)) == wanted.encode()
    agent.wait(id)
    agent.delete(id)


def test_the_last_words_of_many_containers_are_heard(agent: Agent) -> None:
    for n in range(20):
        port, url = output(agent)
        id = agent.run("sh", "-c", f"echo last words {n}; kill -9 $$", stdout=url)
        assert read_all(agent.dial(port)) == f"last words {n}\n".encode()
        agent.wait(id)
        agent.delete(id)


def test_output_of_a_child_that_outlives_its_parent_is_heard(agent: Agent) -> None:
    port, url = output(agent)
    (agent.rootfs / "go").unlink(missing_ok=True)
    script = "(while [ ! -e /go ]; do sleep 0.05; done; echo late) & exit 0"
    # In a pid namespace of its own the child would be killed.
    inner = f"sh -c '{script}'; echo parent; while [ ! -e /done ]; do sleep 0.05; done"
    id = agent.run("sh", "-c", inner, stdout=url)
    with agent.dial(port) as peer:
        assert peer.recv(100) == b"parent\n"
        (agent.rootfs / "go").touch()
        assert peer.recv(100) == b"late\n"
        (agent.rootfs / "done").touch()
        assert peer.recv(100) == b""
    agent.wait(id)
    agent.delete(id)


def test_a_reader_that_stalls_gets_everything_later(agent: Agent) -> None:
    out = put(agent, "out", 4 << 20)
    port, url = output(agent)
    id = agent.run("cat", "/out", stdout=url)
    with agent.dial(port) as peer:
        head = peer.recv(1000)
        # The process is held up, the agent is not.
        time.sleep(1)
        agent.check()
        assert agent.state_of(id).status == 2
        assert head + read_all(peer) == out
    agent.wait(id)
    agent.delete(id)


def test_a_reader_that_only_probes_takes_nothing(agent: Agent) -> None:
    port, url = output(agent)
    id = agent.bundle("echo", "hello")
    agent.create(id, stdout=url)
    for _ in range(3):
        agent.dial(port).close()
    agent.start(id)
    assert read_all(agent.dial(port)) == b"hello\n"
    agent.wait(id)
    agent.delete(id)


def test_output_is_there_for_a_reader_that_comes_after_the_exit(agent: Agent) -> None:
    out = put(agent, "out", 50_000)
    port, url = output(agent)
    id = agent.run("cat", "/out", stdout=url)
    agent.wait(id)
    assert read_all(agent.dial(port)) == out
    agent.delete(id)


def test_a_hundred_readers_that_vanish_cost_no_more_than_their_sockets_hold(agent: Agent) -> None:
    out = put(agent, "out", 24 << 20)
    port, url = output(agent)
    id = agent.run("cat", "/out", stdout=url)
    sizes, position = random.Random(1), 0
    for _ in range(100):
        with agent.dial(port) as peer:
            piece = recv_exactly(peer, sizes.randrange(100, 20_000))
        position = after(piece, out, position)
    # The last one has everything to the very end.
    piece = read_all(agent.dial(port))
    assert after(piece, out, position) == len(out)
    agent.wait(id)
    agent.delete(id)


def after(piece: bytes, out: bytes, position: int) -> int:
    """Where the piece ends in the output: nothing is doubled, little lies before it."""
    start = out.find(piece, position)
    assert 0 <= start - position <= SOCKET
    return start + len(piece)


def recv_exactly(peer: socket, size: int) -> bytes:
    got = b""
    while len(got) < size:
        data = peer.recv(size - len(got))
        assert data
        got += data
    return got


def test_two_readers_in_turn_have_the_whole_between_them(agent: Agent) -> None:
    port, url = output(agent)
    keys, keys_url = output(agent)
    id = agent.run("cat", stdin=keys_url, stdout=url)
    with agent.dial(keys) as writer:
        for n in range(20):
            with agent.dial(port) as peer:
                line = f"line {n}\n".encode() * 100
                writer.sendall(line)
                got = b""
                while len(got) < len(line):
                    got += peer.recv(1 << 16)
                assert got == line
        writer.shutdown(SHUT_WR)
        assert read_all(agent.dial(port)) == b""
    agent.wait(id)
    agent.delete(id)


def test_input_of_256_mib_arrives_byte_for_byte(agent: Agent) -> None:
    block = os.urandom(1 << 20)
    wanted = hashlib.sha256()
    (port, url), (keys, keys_url) = output(agent), output(agent)
    id = agent.run("sha256sum", stdin=keys_url, stdout=url)
    with agent.dial(keys) as writer:
        for _ in range(256):
            writer.sendall(block)
            wanted.update(block)
        writer.shutdown(SHUT_WR)
        assert read_all(agent.dial(port)).split()[0].decode() == wanted.hexdigest()
    agent.wait(id)
    agent.delete(id)


def test_a_writer_that_only_probes_does_not_end_the_input(agent: Agent) -> None:
    (port, url), (keys, keys_url) = output(agent), output(agent)
    id = agent.run("cat", stdin=keys_url, stdout=url)
    agent.dial(keys).close()
    writer = agent.dial(keys)
    send_all(writer, b"hello\n")
    assert read_all(agent.dial(port)) == b"hello\n"
    agent.wait(id)
    agent.delete(id)
    writer.close()


def test_close_io_ends_input_after_what_was_sent(agent: Agent) -> None:
    data = os.urandom(3 << 20)
    (port, url), (keys, keys_url) = output(agent), output(agent)
    id = agent.run("cat", stdin=keys_url, stdout=url)
    took = gevent.spawn(read_all, agent.dial(port))
    with agent.dial(keys) as writer:
        writer.sendall(data)
        agent.close_io(id)
        # The connection stays open: nothing but the call ends the input.
        assert took.get(timeout=TIMEOUT) == data
        assert agent.wait(id).exit_status == 0
    agent.close_io(id)
    agent.delete(id)


def test_close_io_before_the_start_gives_an_empty_input(agent: Agent) -> None:
    _, keys_url = output(agent)
    id = agent.bundle("cat")
    agent.create(id, stdin=keys_url)
    agent.close_io(id)
    agent.start(id)
    assert agent.wait(id).exit_status == 0
    agent.delete(id)


def test_a_grandchild_that_holds_the_pipe_delays_a_deletion_no_longer_than_the_grace(
    agent: Agent,
) -> None:
    port, url = output(agent)
    id = agent.bundle("sh", "-c", "echo hello", own_pids=True)
    agent.create(id, stdout=url)
    # A process outside the container has its pipe open.
    pid = agent.state_of(id).pid
    holder = os.open(f"/proc/{pid}/fd/1", os.O_WRONLY)
    agent.start(id)
    with agent.dial(port) as peer:
        assert peer.recv(100) == b"hello\n"
        agent.wait(id)
        agent.delete(id)
        assert peer.recv(100) == b""
    os.close(holder)


def test_one_stuck_reader_among_fifty_holds_up_no_other(agent: Agent) -> None:
    put(agent, "out", 4 << 20)
    stuck_port, stuck_url = output(agent)
    stuck_id = agent.run("cat", "/out", stdout=stuck_url)
    stuck = agent.dial(stuck_port)
    outputs = [output(agent) for _ in range(49)]
    ids = [agent.run("echo", str(port), stdout=url) for port, url in outputs]
    for port, _ in outputs:
        assert read_all(agent.dial(port)) == f"{port}\n".encode()
    for id in ids:
        agent.wait(id)
        agent.delete(id)
    end(agent, stuck_id)
    stuck.close()


def test_fifos_carry_all_three_streams(agent: Agent) -> None:
    data = os.urandom(1 << 20)
    paths: dict[str, Any] = {name: fifo(agent, name) for name in ("stdin", "stdout", "stderr")}
    id = agent.run("sh", "-c", "echo error >&2; cat", **paths)
    threads = gevent.get_hub().threadpool
    out = threads.spawn(read_fifo, paths["stdout"])
    err = threads.spawn(read_fifo, paths["stderr"])
    threads.spawn(Path(paths["stdin"]).write_bytes, data)
    assert out.get(timeout=TIMEOUT) == data
    assert err.get(timeout=TIMEOUT) == b"error\n"
    agent.wait(id)
    agent.delete(id)


def test_a_fifo_keeps_its_bytes_for_the_next_reader(agent: Agent) -> None:
    path = fifo(agent, "stdout")
    out = put(agent, "out", 500_000)
    id = agent.run("cat", "/out", stdout=path)
    got = b""
    while len(got) < len(out):
        with gevent.Timeout(TIMEOUT):
            got += gevent.get_hub().threadpool.apply(take_from_fifo, (path, 10_000))
    assert got == out
    agent.wait(id)
    agent.delete(id)


def test_output_is_appended_to_a_file_and_input_read_from_one(agent: Agent) -> None:
    data = os.urandom(300_000)
    source, target = agent.ports.parent / "in", agent.ports.parent / "out"
    source.write_bytes(data)
    target.write_bytes(b"first")
    id = agent.run("cat", stdin=str(source), stdout=str(target))
    assert agent.wait(id).exit_status == 0
    agent.delete(id)
    assert target.read_bytes() == b"first" + data


def test_each_stream_has_the_transport_of_its_own_url(agent: Agent) -> None:
    (keys, keys_url), path = output(agent), fifo(agent, "stderr")
    id = agent.run("sh", "-c", "cat >&2", stdin=keys_url, stderr=path)
    writer = agent.dial(keys)
    send_all(writer, b"hello\n")
    assert gevent.get_hub().threadpool.apply(read_fifo, (path,)) == b"hello\n"
    agent.wait(id)
    agent.delete(id)
    writer.close()


def test_a_port_that_never_appears_is_named_in_the_error(agent: Agent) -> None:
    with pytest.raises(StatusError, match="failed to get serial dev of name chardev7") as caught:
        agent.create(agent.bundle("true"), stdout="chardev7")
    assert caught.value.code == Code.UNKNOWN


def test_the_processes_wait_for_the_reader_instead_of_filling_memory(agent: Agent) -> None:
    put(agent, "out", 1 << 20)
    port, url = output(agent)
    id = agent.run("sh", "-c", "while cat /out; do :; done", stdout=url)
    with agent.dial(port) as peer:
        peer.recv(1)
        before = resident(agent.pid)
        pid = agent.state_of(id).pid
        assert eventually(lambda: blocked(pid), bool)
        assert resident(agent.pid) - before < 4 << 20
        end(agent, id)


def blocked(pid: int) -> bool:
    """Whether no process of the container writes any more."""
    first = written(pid)
    gevent.sleep(0.2)
    return written(pid) == first


def written(pid: int) -> list[str]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [Path(f"/proc/{child}/io").read_text() for child in children]


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")

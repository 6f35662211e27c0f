"""Standard streams over the Streaming service, with a real container at the other end."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage

from kuasar_agent.api.streaming_pb2 import StreamInit
from kuasar_agent.api.transfer_pb2 import Data
from kuasar_agent.containers.process import Status
from kuasar_agent.stdio.channels import CAPACITY, WINDOW
from kuasar_agent.stdio.flow_control import SILENT
from kuasar_agent.ttrpc import Code, StatusError
from tests.support.agent import Agent
from tests.support.streams import (
    METHOD,
    STREAM_WINDOW,
    attach_stdin,
    grant,
    next_data,
    next_grant,
    open_stream,
    pack,
    receive,
    receive_exactly,
    receive_in_pieces,
    send,
    url,
)
from tests.support.timeouts import TIMEOUT
from tests.support.waiting import eventually


@pytest.fixture(autouse=True)
def hangs_end() -> Iterator[None]:
    with gevent.Timeout(TIMEOUT):
        yield


def put(agent: Agent, name: str, size: int) -> bytes:
    """A file of random bytes in the containers' root."""
    data = os.urandom(size)
    (agent.rootfs / name).write_bytes(data)
    return data


def test_output_arrives_byte_for_byte(agent: Agent) -> None:
    out, err = put(agent, "out", 3 << 20), put(agent, "err", 300_001)
    streams = [open_stream(agent.client, f"s-{name}") for name in ("stdout", "stderr")]
    took = [gevent.spawn(receive, stream) for stream in streams]
    script = "cat /err >&2 & cat /out; wait"
    id = agent.run("sh", "-c", script, stdout=url("s-stdout"), stderr=url("s-stderr"))
    assert agent.wait(id).exit_status == 0
    assert [greenlet.get(timeout=TIMEOUT) for greenlet in took] == [out, err]
    agent.delete(id)


def test_the_id_may_be_called_id_and_be_quoted(agent: Agent) -> None:
    place = "ttrpc+vsock://3:1024?x=1&id=a%20id%3D-stdout"
    id = agent.run("echo", "hello", stdout=place)
    assert receive(open_stream(agent.client, "a id=-stdout")) == b"hello\n"
    agent.delete(id)


def test_output_is_kept_for_a_reader_that_comes_after_the_exit(agent: Agent) -> None:
    out = put(agent, "out", 100_000)
    id = agent.run("cat", "/out", stdout=url("s-stdout"))
    agent.wait(id)
    assert receive(open_stream(agent.client, "s-stdout")) == out
    # Until the task is deleted the end can be seen again.
    assert receive(open_stream(agent.client, "s-stdout")) == b""
    agent.delete(id)


def test_output_is_kept_for_a_reader_that_comes_after_the_deletion(agent: Agent) -> None:
    # More than the channel holds: the rest waits in the pipe when the task is deleted.
    out = put(agent, "out", CAPACITY + 40_000)
    id = agent.run("cat", "/out", stdout=url("s-stdout"))
    agent.wait(id)
    agent.delete(id)
    assert receive(open_stream(agent.client, "s-stdout")) == out


def test_no_more_is_sent_than_was_granted(agent: Agent) -> None:
    id = agent.run("sh", "-c", "echo 0123456789; sleep 1000", stdout=url("s-stdout"))
    stream = open_stream(agent.client, "s-stdout")
    assert receive_exactly(stream, 4) == b"0123"
    assert gevent.with_timeout(SILENT * 1.5, next_data, stream, timeout_value=None) is None
    # A test cannot wait on the abandoned call: another reader goes on.
    assert receive_exactly(open_stream(agent.client, "s-stdout"), 7) == b"456789\n"
    agent.kill(id, signal.SIGKILL)
    agent.wait(id)
    agent.delete(id)


def test_no_message_is_longer_than_the_buffer_of_containerds_reader(agent: Agent) -> None:
    out = put(agent, "out", CAPACITY)
    id = agent.run("cat", "/out", stdout=url("s-stdout"))
    agent.wait(id)
    stream = open_stream(agent.client, "s-stdout")
    grant(stream, 1 << 20)
    chunks = list(iter(lambda: next_data(stream), None))
    assert b"".join(filter(None, chunks)) == out
    assert max(len(chunk or b"") for chunk in chunks) == 32 * 1024
    agent.delete(id)


def test_a_reader_that_never_grants_gets_everything(agent: Agent) -> None:
    out = put(agent, "out", 200_000)
    id = agent.run("cat", "/out", stdout=url("s-stdout"))
    stream = open_stream(agent.client, "s-stdout")
    got = b""
    while (data := next_data(stream)) is not None:
        got += data
    assert got == out
    agent.delete(id)


def test_a_reader_that_comes_back_a_hundred_times_loses_and_doubles_nothing(agent: Agent) -> None:
    out = put(agent, "out", 2 << 20)
    id = agent.run("cat", "/out", stdout=url("s-stdout"))
    assert receive_in_pieces(agent, "s-stdout", 100, seed=1) == out
    agent.delete(id)


def test_readers_that_vanish_cost_no_more_than_they_had_granted(agent: Agent) -> None:
    out = put(agent, "out", 8 << 20)
    id = agent.run("cat", "/out", stdout=url("s-stdout"))
    sizes, position = random.Random(1), 0
    for _ in range(50):
        with agent.connect() as client:
            stream = open_stream(client, "s-stdout")
            # As containerd does: ahead of what it has read.
            granted = 2 * STREAM_WINDOW
            grant(stream, granted)
            piece = b""
            while len(piece) < sizes.randrange(1, STREAM_WINDOW):
                piece += next_data(stream) or b""
        start = out.find(piece, position)
        assert 0 <= start - position <= granted
        position = start + len(piece)
    rest = receive(open_stream(agent.client, "s-stdout"))
    assert out.endswith(rest)
    assert 0 <= len(out) - len(rest) - position <= granted
    agent.delete(id)


def test_a_reader_takes_over_from_one_that_is_there(agent: Agent) -> None:
    out = put(agent, "out", 1 << 20)
    first = open_stream(agent.client, "s-stdout")
    id = agent.run("cat", "/out", stdout=url("s-stdout"))
    head = receive_exactly(first, 50_000)
    with agent.connect() as client:
        second = gevent.spawn(receive, open_stream(client, "s-stdout"))
        with pytest.raises(StatusError, match=r"\Achannel is preempted\Z") as caught:
            first.recv()
        assert caught.value.code == Code.UNKNOWN
        assert head + second.get(timeout=TIMEOUT) == out
    agent.delete(id)


def test_a_reader_that_is_stuck_keeps_what_its_socket_holds_and_no_more(agent: Agent) -> None:
    out = put(agent, "out", 4 << 20)
    stuck_client = agent.connect()
    stuck = open_stream(stuck_client, "s-stdout")
    grant(stuck, 1 << 30)
    id = agent.run("cat", "/out", stdout=url("s-stdout"))
    # The reader takes no message: reading from its socket pauses.
    agent.check()
    second = gevent.spawn(receive, open_stream(agent.client, "s-stdout"))
    chunks: list[bytes | None] = []
    with pytest.raises(StatusError, match="channel is preempted"):
        chunks.extend(iter(lambda: next_data(stuck), None))
    head = b"".join(filter(None, chunks))
    assert head + second.get(timeout=TIMEOUT) == out
    stuck_client.close()
    agent.delete(id)


def test_a_stuck_reader_holds_up_no_other(agent: Agent) -> None:
    put(agent, "out", 4 << 20)
    stuck = open_stream(agent.client, "stuck-stdout")
    grant(stuck, 1)
    slow = agent.run("cat", "/out", stdout=url("stuck-stdout"))
    ids = [agent.run("echo", f"{n}", stdout=url(f"{n}-stdout")) for n in range(49)]
    took = [gevent.spawn(receive, open_stream(agent.client, f"{n}-stdout")) for n in range(49)]
    for n, greenlet in enumerate(took):
        assert greenlet.get(timeout=TIMEOUT) == f"{n}\n".encode()
    for id in ids:
        agent.delete(id)
    agent.kill(slow, signal.SIGKILL)
    agent.wait(slow)
    stuck.close()
    with agent.connect() as client:
        assert receive(open_stream(client, "stuck-stdout"))
    agent.delete(slow)


def test_input_arrives_byte_for_byte_and_ends_with_the_half_close(agent: Agent) -> None:
    data = os.urandom(2 << 20)
    streams = [open_stream(agent.client, f"s-{name}") for name in ("stdin", "stdout")]
    id = agent.run("cat", stdin=url("s-stdin"), stdout=url("s-stdout"))
    took = gevent.spawn(receive, streams[1])
    send(streams[0], data)
    assert took.get(timeout=TIMEOUT) == data
    while next_grant(streams[0]) is not None:
        pass
    assert agent.wait(id).exit_status == 0
    agent.delete(id)


def test_no_more_than_the_window_is_granted_while_no_process_reads(agent: Agent) -> None:
    stream = open_stream(agent.client, "s-stdin")
    assert next_grant(stream) == 32 * 1024
    stream.send(pack(Data(data=b"x" * 32 * 1024)))
    assert gevent.with_timeout(0.3, next_grant, stream, timeout_value=None) is None
    # The container makes room.
    id = agent.run("wc", "-c", stdin=url("s-stdin"), stdout=url("s-stdout"))
    assert next_grant(stream) == 32 * 1024
    stream.close_send()
    assert receive(open_stream(agent.client, "s-stdout")).strip() == b"32768"
    agent.delete(id)


def test_input_goes_on_over_another_connection(agent: Agent) -> None:
    data = os.urandom(500_000)
    id = agent.run("cat", stdin=url("s-stdin"), stdout=url("s-stdout"))
    took = gevent.spawn(receive, open_stream(agent.client, "s-stdout"))
    for offset in range(0, len(data), 50_000):
        with agent.connect() as client:
            stream, window = attach_stdin(client, "s-stdin")
            window = send(stream, data[offset : offset + 50_000], window=window, close=False)
            # With all of the window granted anew, the process has everything.
            while window < WINDOW:
                window += next_grant(stream) or 0
    with agent.connect() as client:
        attach_stdin(client, "s-stdin")[0].close_send()
        assert took.get(timeout=TIMEOUT) == data
    agent.wait(id)
    agent.delete(id)


def test_a_second_writer_is_refused(agent: Agent) -> None:
    first = open_stream(agent.client, "s-stdin")
    assert next_grant(first) == WINDOW
    second = open_stream(agent.client, "s-stdin")
    with pytest.raises(StatusError, match="someone is taking the channel sender") as caught:
        second.recv()
    assert caught.value.code == Code.UNKNOWN
    first.close_send()
    assert first.recv() is None


def test_the_writer_is_told_when_the_process_is_deleted(agent: Agent) -> None:
    stream = open_stream(agent.client, "s-stdin")
    assert next_grant(stream) == WINDOW
    id = agent.run("true", stdin=url("s-stdin"))
    agent.wait(id)
    agent.delete(id)
    assert stream.recv() is None


def test_close_io_ends_input_after_what_was_sent(agent: Agent) -> None:
    data = os.urandom(20_000)
    stream = open_stream(agent.client, "s-stdin")
    id = agent.run("cat", stdin=url("s-stdin"), stdout=url("s-stdout"))
    send(stream, data, close=False)
    agent.close_io(id)
    assert receive(open_stream(agent.client, "s-stdout")) == data
    assert agent.wait(id).exit_status == 0
    agent.delete(id)


@pytest.mark.parametrize("id", ["", "x" * 2000])
def test_a_stream_without_a_proper_id_is_an_invalid_argument(agent: Agent, id: str) -> None:
    stream = agent.client.stream(METHOD)
    stream.send(pack(StreamInit(id=id)))
    with pytest.raises(StatusError) as caught:
        stream.recv()
    assert caught.value.code == Code.INVALID_ARGUMENT


def test_a_stream_that_ends_before_its_id_is_an_error(agent: Agent) -> None:
    stream = agent.client.stream(METHOD)
    stream.close_send()
    with pytest.raises(StatusError, match="can not receive streamInit") as caught:
        stream.recv()
    assert caught.value.code == Code.UNKNOWN


def test_a_stream_of_no_standard_name_ends_at_once(agent: Agent) -> None:
    assert open_stream(agent.client, "other").recv() is None


def test_an_update_that_does_not_parse_ends_the_stream_and_loses_nothing(agent: Agent) -> None:
    id = agent.run("echo", "hello", stdout=url("s-stdout"))
    stream = open_stream(agent.client, "s-stdout")
    stream.send(AnyMessage(value=b"\xff"))
    with pytest.raises(StatusError) as caught:
        stream.recv()
    assert caught.value.code == Code.INVALID_ARGUMENT
    assert receive(open_stream(agent.client, "s-stdout")) == b"hello\n"
    agent.delete(id)


@pytest.mark.parametrize("exec_id", ["", "e"], ids=["container", "exec"])
def test_the_end_is_told_once_the_output_is_taken(agent: Agent, exec_id: str) -> None:
    stream = open_stream(agent.client, "s-stdout")
    command = ("echo", "hello")
    if exec_id:
        id = agent.run("sleep", "1000")
        pid = agent.exec(id, exec_id, *command, stdout=url("s-stdout"))
    else:
        id = agent.bundle(*command)
        pid = agent.create(id, stdout=url("s-stdout"))
        agent.start(id)
    waiting = gevent.spawn(agent.wait, id, exec_id)
    assert receive_exactly(stream, 3) == b"hel"
    assert eventually(lambda: Path(f"/proc/{pid}").exists(), lambda exists: not exists) is False
    assert int(agent.state_of(id, exec_id).status) == Status.RUNNING
    assert not waiting.ready()
    assert receive(stream) == b"lo\n"
    assert waiting.get().exit_status == 0
    assert int(agent.state_of(id, exec_id).status) == Status.STOPPED
    agent.delete(id)


def test_the_end_is_told_although_a_reader_takes_nothing(agent: Agent) -> None:
    id = agent.run("echo", "hello", stdout=url("s-stdout"))
    stream = open_stream(agent.client, "s-stdout")
    grant(stream, 3)
    assert agent.wait(id).exit_status == 0
    agent.delete(id)
    # The rest stays for a reader that takes it.
    with agent.connect() as client:
        assert receive(open_stream(client, "s-stdout")) == b"lo\n"


def test_output_stays_for_the_next_reader_when_one_closes_its_side(agent: Agent) -> None:
    id = agent.run("echo", "hello", stdout=url("s-stdout"))
    stream = open_stream(agent.client, "s-stdout")
    assert receive_exactly(stream, 3) == b"hel"
    stream.close_send()
    assert next_data(stream) is None
    assert receive(open_stream(agent.client, "s-stdout")) == b"lo\n"
    assert agent.wait(id).exit_status == 0
    agent.delete(id)

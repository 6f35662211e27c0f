"""Replies that do not leave, and handlers that hear of it."""

from __future__ import annotations

from google.protobuf.wrappers_pb2 import BytesValue

from kuasar_agent.ttrpc import Code, Server
from tests.support.ttrpc.echo import Echo
from tests.support.ttrpc.live import until
from tests.support.ttrpc.wire import PATIENCE, SocketWire, only, request


def begin(live: SocketWire, echo: Echo) -> list[str]:
    """A call in progress; the list grows when its reply turns out not to leave."""
    lost: list[str] = []
    live.send(request(99, "Block", text="x"))
    assert echo.entered.wait(PATIENCE)
    echo.contexts[0].on_undelivered(lambda: lost.append("lost"))
    return lost


def test_a_reply_that_left_is_not_undelivered(live: SocketWire, echo: Echo, server: Server) -> None:
    lost = begin(live, echo)
    echo.release.set()
    assert only(live).text == "x"
    until(lambda: not server.running)
    assert not lost


def test_a_reply_to_a_closed_connection_is_undelivered(
    live: SocketWire, echo: Echo, server: Server
) -> None:
    lost = begin(live, echo)
    live.sock.close()
    until(lambda: not server.connections)
    echo.release.set()
    until(lambda: bool(lost))
    until(lambda: not server.running)


def test_a_reply_that_waits_behind_others_is_undelivered_when_the_peer_goes(
    live: SocketWire, echo: Echo, server: Server
) -> None:
    payload = BytesValue(value=bytes(1 << 20)).SerializeToString()
    live.send(*(request(id, "EchoBytes", payload=payload) for id in (1, 3)))
    lost = begin(live, echo)
    echo.release.set()
    assert echo.finished.get(timeout=PATIENCE) == "block"
    assert not lost
    live.sock.close()
    until(lambda: bool(lost))
    until(lambda: not server.running)


def test_a_reply_after_the_deadline_is_undelivered(
    live: SocketWire, echo: Echo, server: Server
) -> None:
    lost: list[str] = []
    live.send(request(1, "Block", text="x", timeout=1_000_000))
    assert echo.entered.wait(PATIENCE)
    echo.contexts[0].on_undelivered(lambda: lost.append("lost"))
    assert only(live).status[0] == Code.DEADLINE_EXCEEDED
    echo.release.set()
    until(lambda: bool(lost))
    until(lambda: not server.running)

"""Garbage gives a protocol error or a reply: never another exception, never unbounded memory."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from kuasar_agent.ttrpc.envelope_pb2 import Request, Response, Status
from kuasar_agent.ttrpc.frames import FrameReader
from tests.fuzz.cores import METHODS, ClientUnderFuzz, ServerUnderFuzz, frames_of, try_bytes
from tests.support.ttrpc.echo import NAME
from tests.support.ttrpc.wire import frame

bounded = settings(derandomize=True, max_examples=150, deadline=None, database=None)
"""The same inputs on every run."""

IDS = st.one_of(st.integers(0, 15), st.sampled_from([0xFFFFFFFF, 0xFFFFFFFE]))
FLAGS = st.one_of(st.integers(0, 7), st.integers(0, 255))
REQUESTS = st.builds(
    lambda method, payload, timeout: Request(
        service=NAME, method=method, payload=payload, timeout_nano=timeout
    ).SerializeToString(),
    st.one_of(st.sampled_from(sorted(METHODS)), st.text(max_size=5)),
    st.binary(max_size=2000),
    st.integers(-(1 << 63), (1 << 63) - 1),
)
RESPONSES = st.builds(
    lambda code, payload: Response(status=Status(code=code), payload=payload).SerializeToString(),
    st.integers(-(1 << 31), (1 << 31) - 1),
    st.binary(max_size=2000),
)
FRAMES = st.builds(
    frame,
    IDS,
    st.one_of(st.integers(1, 3), st.integers(0, 255)),
    FLAGS,
    st.one_of(REQUESTS, RESPONSES, st.binary(max_size=2000)),
)
STREAMS = st.lists(st.one_of(FRAMES, FRAMES, st.binary(max_size=30)), max_size=30).map(b"".join)
CUTS = st.lists(st.integers(0, 3000), max_size=8)


def pieces(stream: bytes, cuts: list[int]) -> list[bytes]:
    cut = []
    for size in cuts:
        cut.append(stream[:size])
        stream = stream[size:]
    return [*cut, stream]


@bounded
@given(st.binary(max_size=200))
def test_any_bytes_at_both_cores(data: bytes) -> None:
    try_bytes(data)


@bounded
@given(STREAMS, CUTS)
def test_frames_right_and_wrong_at_the_server(stream: bytes, cuts: list[int]) -> None:
    server = ServerUnderFuzz()
    for piece in pieces(stream, cuts):
        server.receive(piece)
    server.core.closed()
    assert not server.core.streams


@bounded
@given(STREAMS, CUTS, st.lists(st.integers(0, 27), max_size=8))
def test_frames_right_and_wrong_at_a_client_in_use(
    stream: bytes, cuts: list[int], uses: list[int]
) -> None:
    client = ClientUnderFuzz()
    for index, piece in enumerate(pieces(stream, cuts)):
        client.receive(piece)
        if index < len(uses):
            client.use(uses[index])
    client.close()


@bounded
@given(STREAMS, CUTS)
def test_frames_are_the_same_however_the_bytes_are_cut(stream: bytes, cuts: list[int]) -> None:
    whole, cut = FrameReader(), FrameReader()
    expected = whole.feed(stream)
    assert [each for piece in pieces(stream, cuts) for each in cut.feed(piece)] == expected


def test_made_frames_are_what_the_data_says() -> None:
    assert frames_of(b"\x01\x01\x02\x03abc") == frame(1, 1, 2, b"abc")
    assert frames_of(b"\x81\x01\x02\x03abc") != frame(1, 1, 2, b"abc")

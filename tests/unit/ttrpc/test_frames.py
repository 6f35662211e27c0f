"""Frames cut from a byte stream."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kuasar_agent.ttrpc.frames import (
    DATA,
    HEADER,
    MAX_PAYLOAD,
    NO_DATA,
    REMOTE_CLOSED,
    REQUEST,
    RESPONSE,
    Frame,
    FrameReader,
    encode,
)

CONNECT = b"\x0a\x17containerd.task.v2.Task\x12\x07Connect"


def frames_of(*chunks: bytes) -> list[Frame]:
    reader = FrameReader()
    return [frame for chunk in chunks for frame in reader.feed(chunk)]


def one_by_one(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


# Bytes the Go implementation writes and accepts.
@pytest.mark.parametrize(
    ("wire", "stream", "kind", "flags", "payload"),
    [
        (bytes.fromhex("00000022 00000001 01 00") + CONNECT, 1, REQUEST, 0, CONNECT),
        (bytes.fromhex("00000000 00000001 02 00"), 1, RESPONSE, 0, b""),
        (bytes.fromhex("00000002 00000001 02 00 0a00"), 1, RESPONSE, 0, b"\x0a\x00"),
        (
            bytes.fromhex("00000004 00000001 02 00 12020802"),
            1,
            RESPONSE,
            0,
            b"\x12\x02\x08\x02",
        ),
        (bytes.fromhex("00000000 00000001 03 05"), 1, DATA, REMOTE_CLOSED | NO_DATA, b""),
    ],
)
def test_golden_frames_are_written_and_read(
    wire: bytes, stream: int, kind: int, flags: int, payload: bytes
) -> None:
    assert encode(stream, kind, flags, payload) == wire
    assert frames_of(wire) == [Frame(stream, kind, flags, payload, len(payload))]
    assert frames_of(*one_by_one(wire)) == frames_of(wire)


def test_a_payload_of_exactly_the_limit_is_a_frame() -> None:
    payload = bytes(MAX_PAYLOAD)
    wire = encode(1, REQUEST, 0, payload)
    assert wire[0] == 0
    assert frames_of(wire[:5], wire[5:1000], wire[1000:]) == [
        Frame(1, REQUEST, 0, payload, MAX_PAYLOAD)
    ]


def test_an_oversize_payload_is_announced_by_its_header_and_consumed() -> None:
    length = MAX_PAYLOAD + 1
    header = HEADER.pack(length, 3, REQUEST, 0)
    after = encode(5, REQUEST, 0, b"x")
    expected = [Frame(3, REQUEST, 0, b"", length), Frame(5, REQUEST, 0, b"x", 1)]
    assert frames_of(header) == expected[:1]
    assert frames_of(header + bytes(length) + after) == expected
    assert frames_of(header + bytes(7), bytes(length - 7), after) == expected
    assert frames_of(header, bytes(length - 1), b"\0" + after[:4], after[4:]) == expected


frame = st.builds(
    encode,
    st.integers(0, 0xFFFFFFFF),
    st.integers(0, 255),
    st.integers(0, 255),
    st.binary(max_size=40),
)


@given(st.lists(frame, max_size=8), st.data())
def test_frames_do_not_depend_on_how_the_bytes_are_split(
    wires: list[bytes], data: st.DataObject
) -> None:
    whole = b"".join(wires)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=10)))
    edges = [0, *cuts, len(whole)]
    chunks = [whole[a:b] for a, b in itertools.pairwise(edges)]
    found = frames_of(*chunks)
    assert [encode(f.stream, f.type, f.flags, f.payload) for f in found] == wires
    assert frames_of(*one_by_one(whole)) == found


@given(st.lists(st.binary(max_size=200), max_size=20))
def test_garbage_never_raises_and_nothing_but_an_unfinished_frame_is_kept(
    chunks: list[bytes],
) -> None:
    reader = FrameReader()
    for chunk in chunks:
        for found in reader.feed(chunk):
            assert len(found.payload) == found.length or found.length > MAX_PAYLOAD
        kept = reader._buffer
        assert len(kept) < HEADER.size or len(kept) - HEADER.size < int.from_bytes(kept[:4], "big")
        assert len(kept) < HEADER.size + MAX_PAYLOAD


def test_the_payload_of_an_oversize_frame_is_not_kept() -> None:
    reader = FrameReader()
    reader.feed(HEADER.pack(0xFFFFFFFF, 1, REQUEST, 0))
    for _ in range(64):
        assert reader.feed(bytes(1 << 20)) == []
        assert len(reader._buffer) == 0

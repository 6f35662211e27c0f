"""The envelopes of unary traffic: what a Request's and a Response's payload holds.

Requests and replies are written by hand, field by field in number order, because a fixed prefix
and one copy of the payload are all there is to them; everything read goes through protobuf.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from . import envelope_pb2
from .frames import MAX_PAYLOAD
from .status import Code, Internal, InvalidArgument, StatusError

if TYPE_CHECKING:
    from google.protobuf.any_pb2 import Any as AnyMessage

LONGEST_TEXT = 64 << 10
"""What is kept of a status message that does not fit a frame, in characters."""

_request_from = envelope_pb2.Request.FromString
_response_from = envelope_pb2.Response.FromString

# Tags: field number << 3 | wire type (2 length-delimited, 0 varint).
_REPLY_PAYLOAD = b"\x12"
_PAYLOAD = b"\x1a"
_TIMEOUT = b"\x20"


def varint(value: int) -> bytes:
    """A non-negative integer in protobuf's base-128 form."""
    if value < 0x80:
        return value.to_bytes(1, "little")
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def request_prefix(service: str, method: str) -> bytes:
    """The fields that every request of a method begins with."""
    return envelope_pb2.Request(service=service, method=method).SerializeToString()


def encode_request(
    prefix: bytes, payload: bytes, timeout_nano: int, metadata: Iterable[tuple[str, str]]
) -> bytes:
    """A Request; empty fields are left out, as protobuf does."""
    parts = [prefix]
    if payload:
        parts += (_PAYLOAD, varint(len(payload)), payload)
    if timeout_nano:
        parts += (_TIMEOUT, varint(timeout_nano))
    if metadata:
        pairs = [envelope_pb2.KeyValue(key=key, value=value) for key, value in metadata]
        parts.append(envelope_pb2.Request(metadata=pairs).SerializeToString())
    return b"".join(parts)


def decode_request(data: bytes) -> envelope_pb2.Request:
    """Raises InvalidArgument with Go's words."""
    try:
        return _request_from(data)
    except DecodeError as error:
        raise InvalidArgument(f"unmarshal request error: {error}") from None


def encode_reply(payload: bytes) -> bytes:
    """A Response with OK, which is no status at all."""
    if not payload:
        return b""
    return _REPLY_PAYLOAD + varint(len(payload)) + payload


def encode_status(code: int, message: str, details: Sequence[AnyMessage] = ()) -> bytes:
    """A Response with an error. Always fits a frame: details go first, then the text's end."""
    # A reply with code 0 would be taken for success.
    code = int(code) or Code.UNKNOWN.value
    text = message.encode("utf-8", "backslashreplace").decode()
    status = envelope_pb2.Status(code=code, message=text, details=details)
    data = envelope_pb2.Response(status=status).SerializeToString()
    if len(data) > MAX_PAYLOAD:
        return encode_status(code, text[:LONGEST_TEXT])
    return data


def decode_response(data: bytes) -> tuple[bytes, StatusError | None]:
    """The reply's payload, or the error. Raises Internal when it is no Response."""
    try:
        response = _response_from(data)
    except DecodeError as error:
        raise Internal(f"unmarshal response error: {error}") from None
    # Rust sends an empty status with every reply: absent and code 0 are alike.
    if response.HasField("status") and response.status.code:
        status = response.status
        return b"", StatusError.from_code(status.code, status.message, list(status.details))
    return response.payload, None

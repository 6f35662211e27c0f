"""The protobuf messages inside Request and Response frames.

Requests and replies are encoded here, field by field in number order: a prefix that is the same for
every call of a method, and one copy of the payload. Everything received is decoded by protobuf.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from .envelope_pb2 import KeyValue, Request, Response, Status
from .frames import MAX_PAYLOAD
from .status import Code, Internal, InvalidArgument, StatusError

if TYPE_CHECKING:
    from google.protobuf.any_pb2 import Any as AnyMessage

LONGEST_TEXT = 64 << 10
"""Characters kept of a status message that does not fit a frame."""

_request_from = Request.FromString
_response_from = Response.FromString

# Tags: field number << 3 | wire type (2 length-delimited, 0 varint).
_REPLY_PAYLOAD = b"\x12"
_PAYLOAD = b"\x1a"
_TIMEOUT = b"\x20"


def varint(value: int) -> bytes:
    """Return a non-negative integer as a protobuf varint (base 128, low bits first)."""
    if value < 0x80:
        return value.to_bytes(1, "little")
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def request_prefix(service: str, method: str) -> bytes:
    """Return the encoded fields with which every request of a method begins."""
    return Request(service=service, method=method).SerializeToString()


def encode_request(
    prefix: bytes, payload: bytes, timeout_nano: int, metadata: Iterable[tuple[str, str]]
) -> bytes:
    """Return a Request; empty fields are left out, as protobuf does."""
    parts = [prefix]
    if payload:
        parts += (_PAYLOAD, varint(len(payload)), payload)
    if timeout_nano:
        parts += (_TIMEOUT, varint(timeout_nano))
    if metadata:
        pairs = [KeyValue(key=key, value=value) for key, value in metadata]
        parts.append(Request(metadata=pairs).SerializeToString())
    return b"".join(parts)


def decode_request(data: bytes) -> Request:
    """Return the Request in `data`.

    Raises:
        InvalidArgument: `data` does not parse; the text begins as that of Go's server.
    """
    try:
        return _request_from(data)
    except DecodeError as error:
        raise InvalidArgument(f"unmarshal request error: {error}") from None


def encode_reply(payload: bytes) -> bytes:
    """Return a Response of a call that succeeded, which has no status field."""
    if not payload:
        return b""
    return _REPLY_PAYLOAD + varint(len(payload)) + payload


def encode_status(code: int, message: str, details: Sequence[AnyMessage] = ()) -> bytes:
    """Return a Response with an error.

    If it does not fit a frame, the details are dropped and the text is cut.
    """
    # The client would take code 0 for success.
    code = int(code) or Code.UNKNOWN.value
    text = message.encode("utf-8", "backslashreplace").decode()
    encoded = [detail.SerializeToString() for detail in details]
    status = Status(code=code, message=text, details=encoded)
    data = Response(status=status).SerializeToString()
    if len(data) > MAX_PAYLOAD:
        return encode_status(code, text[:LONGEST_TEXT])
    return data


def decode_response(data: bytes) -> tuple[bytes, StatusError | None]:
    """Return the payload of a reply and None, or b"" and the error.

    Raises:
        Internal: `data` does not parse as a Response.
    """
    try:
        response = _response_from(data)
    except DecodeError as error:
        raise Internal(f"unmarshal response error: {error}") from None
    # Rust servers send an empty status with every reply: code 0 means the same as no status.
    if response.HasField("status") and response.status.code:
        status = response.status
        return b"", StatusError.from_code(status.code, status.message, _details_of(status))
    return response.payload, None


def _details_of(status: Status) -> list[AnyMessage]:
    if not status.details:
        return []
    from google.protobuf.any_pb2 import Any

    return [Any.FromString(detail) for detail in status.details]

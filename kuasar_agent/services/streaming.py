"""`containerd.services.streaming.v1.Streaming`: standard streams over ttrpc calls.

A call names its stream in a first message, StreamInit, which is acknowledged with Empty. From then
on one side sends Data and the other one WindowUpdates, which are credit: bytes that may be sent.

https://github.com/containerd/containerd/blob/main/core/transfer/streaming/stream.go
"""

from __future__ import annotations

from typing import TypeVar

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError, Message

from kuasar_agent.api import streaming_pb2, transfer_pb2
from kuasar_agent.containerd import pack
from kuasar_agent.stdio.channels import Channels, Preempted
from kuasar_agent.stdio.flow_control import InputFlow, OutputFlow
from kuasar_agent.ttrpc import ConnectionClosed, Context, InvalidArgument, ServerStream, Unknown
from kuasar_agent.ttrpc.envelope import varint

M = TypeVar("M", bound=Message)

SERVICE = streaming_pb2.DESCRIPTOR.services_by_name["Streaming"]

LONGEST_ID = 1024


class StreamingService:
    """Handlers of the Streaming service."""

    def __init__(self, channels: Channels) -> None:
        self._channels = channels

    def stream(self, ctx: Context, stream: ServerStream) -> None:
        """Carry one standard stream until its end: the process's, or the host's.

        The id's end says which one it is: `stdin`, `stdout` or `stderr`.

        Raises:
            InvalidArgument: an id that is empty or too long, a message that does not parse.
            ResourceExhausted: too many streams, or a host that ignores its window.
            Unknown: no id; another call writes the input; another call has taken the output over.
        """
        first = stream.recv()
        if first is None:
            # contract: vmm-task
            raise Unknown("can not receive streamInit")
        id = _parse(streaming_pb2.StreamInit, first).id
        if not 0 < len(id) <= LONGEST_ID:
            raise InvalidArgument(f"stream id of {len(id)} characters")
        stream.send(pack(Empty()))
        if id.endswith("stdin"):
            self._receive(id, _Stream(stream))
        elif id.endswith(("stdout", "stderr")):
            self._send(id, _Stream(stream))

    def _receive(self, id: str, stream: _Stream) -> None:
        channel = self._channels.input(id)
        flow = InputFlow(channel, stream)
        try:
            flow.run()
        finally:
            flow.leave()
            self._channels.writer_left(id, channel)

    def _send(self, id: str, stream: _Stream) -> None:
        channel = self._channels.output(id)
        flow = OutputFlow(channel, stream)
        try:
            flow.run()
        except Preempted:
            # contract: vmm-task
            raise Unknown("channel is preempted") from None
        except ConnectionError:
            raise ConnectionClosed from None
        finally:
            flow.leave()
            self._channels.reader_left(id, channel)


class _Stream:
    """The messages of a call as `flow_control.Stream` wants them."""

    def __init__(self, stream: ServerStream) -> None:
        self._stream = stream
        self.flush = stream.flush
        self.end = stream.close_send
        self.withdraw = stream.withdraw

    def receive_grant(self) -> int | None:
        message = self._stream.recv()
        if message is None:
            return None
        return int(_parse(transfer_pb2.WindowUpdate, message).update)

    def receive_data(self) -> bytes | None:
        message = self._stream.recv()
        return None if message is None else bytes(_parse(transfer_pb2.Data, message).data)

    def send_grant(self, size: int) -> None:
        self._stream.send(pack(transfer_pb2.WindowUpdate(update=size)))

    def send_data(self, data: memoryview) -> None:
        self._stream.send_encoded(encode_data(data))


_DATA_URL = AnyMessage(type_url=transfer_pb2.Data.DESCRIPTOR.full_name).SerializeToString()
# Tags: field number << 3 | 2, which is a length and as many bytes.
_ANY_VALUE = b"\x12"
_DATA_DATA = b"\x0a"


def encode_data(data: bytes | memoryview) -> bytes:
    """Return a Data in an Any in wire form.

    It costs one copy of the bytes, where protobuf's own way takes five.
    """
    field = _DATA_DATA + varint(len(data))
    length = varint(len(field) + len(data))
    return b"".join((_DATA_URL, _ANY_VALUE, length, field, data))


def _parse(kind: type[M], message: AnyMessage) -> M:
    try:
        return kind.FromString(message.value)
    except DecodeError as error:
        raise InvalidArgument(f"{kind.__name__}: {error}") from None

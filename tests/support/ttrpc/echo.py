"""The service under test: every kind of method on well-known message types."""

from __future__ import annotations

from gevent.event import Event
from gevent.queue import Queue
from google.protobuf import descriptor_pb2, descriptor_pool, empty_pb2, wrappers_pb2
from google.protobuf.descriptor import ServiceDescriptor

from kuasar_agent.ttrpc import Context, ServerStream, cancellable
from kuasar_agent.ttrpc.status import NotFound, StatusError

NAME = "ttrpc.test.Echo"
STRING = ".google.protobuf.StringValue"
BYTES = ".google.protobuf.BytesValue"
INT = ".google.protobuf.Int64Value"
EMPTY = ".google.protobuf.Empty"

METHODS = (
    ("Echo", STRING, STRING, False, False),
    ("EchoBytes", BYTES, BYTES, False, False),
    ("Nothing", EMPTY, EMPTY, False, False),
    ("Throw", STRING, STRING, False, False),
    ("Block", STRING, STRING, False, False),
    ("Wait", STRING, STRING, False, False),
    ("Describe", STRING, STRING, False, False),
    ("Large", INT, BYTES, False, False),
    ("Missing", STRING, STRING, False, False),
    ("Count", INT, INT, False, True),
    ("Blobs", INT, BYTES, False, True),
    ("Sum", INT, INT, True, False),
    ("Swallow", BYTES, INT, True, False),
    ("Chat", STRING, STRING, True, True),
    ("ChatBytes", BYTES, BYTES, True, True),
    ("Failing", INT, INT, False, True),
    ("Late", STRING, STRING, True, True),
    ("Goodbye", STRING, STRING, True, True),
    ("Parting", STRING, STRING, True, True),
    ("Hold", BYTES, BYTES, True, True),
    ("Idle", BYTES, BYTES, True, True),
)


def _descriptor() -> ServiceDescriptor:
    file = descriptor_pb2.FileDescriptorProto(
        name="ttrpc_test_echo.proto",
        package="ttrpc.test",
        syntax="proto3",
        dependency=[
            wrappers_pb2.DESCRIPTOR.name,
            empty_pb2.DESCRIPTOR.name,
        ],
    )
    service = file.service.add(name="Echo")
    for name, request, reply, client_streaming, server_streaming in METHODS:
        service.method.add(
            name=name,
            input_type=request,
            output_type=reply,
            client_streaming=client_streaming,
            server_streaming=server_streaming,
        )
    pool = descriptor_pool.Default()
    pool.Add(file)
    return pool.FindServiceByName(NAME)


SERVICE = _descriptor()


class Echo:
    """Handlers, with events and queues through which a test follows them."""

    def __init__(self) -> None:
        self.release = Event()
        self.entered = Event()
        self.contexts: list[Context] = []
        self.finished: Queue[str] = Queue()
        self.error: BaseException = NotFound("no such thing")

    def echo(self, ctx: Context, request: wrappers_pb2.StringValue) -> wrappers_pb2.StringValue:
        self.contexts.append(ctx)
        return request

    def echo_bytes(
        self, _ctx: Context, request: wrappers_pb2.BytesValue
    ) -> wrappers_pb2.BytesValue:
        return request

    def nothing(self, _ctx: Context, _request: empty_pb2.Empty) -> None:
        return None

    def throw(self, _ctx: Context, _request: wrappers_pb2.StringValue) -> None:
        raise self.error.with_traceback(None)

    def block(self, ctx: Context, request: wrappers_pb2.StringValue) -> wrappers_pb2.StringValue:
        """Run to the end even without a caller."""
        self.contexts.append(ctx)
        self.entered.set()
        self.release.wait()
        self.finished.put("block")
        return request

    @cancellable
    def wait(self, ctx: Context, request: wrappers_pb2.StringValue) -> wrappers_pb2.StringValue:
        """Wait, until killed because the caller is gone."""
        self.contexts.append(ctx)
        self.entered.set()
        try:
            self.release.wait()
        finally:
            self.finished.put("wait")
        return request

    def describe(self, ctx: Context, request: wrappers_pb2.StringValue) -> wrappers_pb2.StringValue:
        """Return the hours to the deadline and the metadata of a key."""
        remaining = ctx.remaining()
        deadline = "none" if remaining is None else f"{remaining / 3600:.0f}"
        values = ",".join(ctx.metadata.get_all(request.value))
        return wrappers_pb2.StringValue(value=f"deadline={deadline} values={values}")

    def large(self, _ctx: Context, request: wrappers_pb2.Int64Value) -> wrappers_pb2.BytesValue:
        return wrappers_pb2.BytesValue(value=bytes(request.value))

    def count(self, _ctx: Context, request: wrappers_pb2.Int64Value, stream: ServerStream) -> None:
        for number in range(request.value):
            stream.send(wrappers_pb2.Int64Value(value=number))

    def blobs(self, _ctx: Context, request: wrappers_pb2.Int64Value, stream: ServerStream) -> None:
        """Send messages: their number is the high half of the request, their size the low half."""
        message = wrappers_pb2.BytesValue(value=bytes(request.value & 0xFFFFFFFF))
        for _ in range(request.value >> 32):
            stream.send(message)

    def swallow(self, _ctx: Context, stream: ServerStream) -> wrappers_pb2.Int64Value:
        return wrappers_pb2.Int64Value(value=sum(len(message.value) for message in stream))

    def sum(self, _ctx: Context, stream: ServerStream) -> wrappers_pb2.Int64Value:
        return wrappers_pb2.Int64Value(value=sum(message.value for message in stream))

    def chat(self, _ctx: Context, stream: ServerStream) -> None:
        for message in stream:
            stream.send(message)

    chat_bytes = chat

    def failing(self, ctx: Context, request: wrappers_pb2.Int64Value, stream: ServerStream) -> None:
        self.count(ctx, request, stream)
        raise NotFound("no more")

    def late(self, _ctx: Context, stream: ServerStream) -> None:
        """Continue after the client has sent all."""
        for _ in stream:
            pass
        self.entered.set()
        self.release.wait()
        stream.send(wrappers_pb2.StringValue(value="late"))

    def goodbye(self, _ctx: Context, stream: ServerStream) -> None:
        """End without waiting for the end of the client."""
        stream.send(wrappers_pb2.StringValue(value="bye"))

    def parting(self, _ctx: Context, stream: ServerStream) -> None:
        """Send the end first, then receive every message of the client."""
        stream.close_send()
        self.finished.put(",".join(message.value for message in stream))

    @cancellable
    def hold(self, ctx: Context, _stream: ServerStream) -> None:
        """Wait without taking a message."""
        self.contexts.append(ctx)
        self.entered.set()
        try:
            self.release.wait()
        finally:
            self.finished.put("hold")

    def idle(self, _ctx: Context, stream: ServerStream) -> None:
        """Wait for a message and report how the wait ended."""
        self.entered.set()
        try:
            stream.recv()
            self.finished.put("received")
        except StatusError as error:
            self.finished.put(error.message)
            raise

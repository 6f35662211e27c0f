"""The server to be measured: `python -m tests.bench.ttrpc_server SOCKET` says when it serves."""

from __future__ import annotations

import sys

from google.protobuf.wrappers_pb2 import BytesValue, Int64Value, StringValue

from kuasar_agent.ttrpc import Context, Limits, Server, ServerStream, listen
from tests.support.ttrpc.echo import SERVICE

BLOBS = 0xFFFFFFFF
"""Mask of the size in what `blobs` is asked for; the number of messages is above it."""


class Handler:
    """What is measured, and no more."""

    def echo(self, _ctx: Context, request: StringValue) -> StringValue:
        return request

    def blobs(self, _ctx: Context, request: Int64Value, stream: ServerStream) -> None:
        message = BytesValue(value=bytes(request.value & BLOBS))
        for _ in range(request.value >> 32):
            stream.send(message)

    def swallow(self, _ctx: Context, stream: ServerStream) -> Int64Value:
        return Int64Value(value=sum(len(message.value) for message in stream))

    def idle(self, _ctx: Context, stream: ServerStream) -> None:
        stream.recv()


def main(path: str) -> None:
    """Serve until killed."""
    server = Server(limits=Limits(connections=4096))
    server.register(SERVICE, Handler(), partial=True)
    listener = listen(f"unix://{path}")
    print("serving", flush=True)
    server.serve(listener)


if __name__ == "__main__":
    main(sys.argv[1])

"""`grpc.SandboxService`: what Kuasar's sandboxer asks of the guest as a whole.

Decode, call, encode. What the handlers call is imported with the first call that needs it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from google.protobuf.empty_pb2 import Empty

from kuasar_agent.api import events_pb2, sandbox_pb2
from kuasar_agent.events import EventQueue
from kuasar_agent.reaper import Reaper
from kuasar_agent.ttrpc import Context, cancellable

if TYPE_CHECKING:
    from kuasar_agent.sandbox.interfaces import Interface
    from kuasar_agent.sandbox.pod import Pod
    from kuasar_agent.sandbox.routes import Route

SERVICE = sandbox_pb2.DESCRIPTOR.services_by_name["SandboxService"]

_ANSWER_WITHIN = 1.0
"""Seconds before the caller's deadline at which waiting ends: the error has to arrive in time."""


class SandboxService:
    """Handlers of the sandbox service."""

    def __init__(self, events: EventQueue, reaper: Reaper, make_pod: Callable[[], Pod]) -> None:
        self._events = events
        self._reaper = reaper
        self._make_pod = make_pod
        self._made: Pod | None = None

    def check(self, ctx: Context, request: sandbox_pb2.CheckRequest) -> Empty:
        """The agent serves: that it answers is the answer."""
        return Empty()

    @cancellable
    def get_events(self, ctx: Context, request: Empty) -> events_pb2.Envelope:
        """The next event; waits for one, and takes none for a caller that is gone."""
        envelope = self._events.take()
        ctx.on_undelivered(lambda: self._events.put_back(envelope))
        return envelope

    def setup_sandbox(self, ctx: Context, request: sandbox_pb2.SetupSandboxRequest) -> Empty:
        from kuasar_agent.sandbox import podconfig

        config = podconfig.parse(request.config.type_url, request.config.value)
        interfaces = decode_interfaces(request.interfaces)
        routes = decode_routes(request.routes)
        self._pod.set_up(config, interfaces, routes, _deadline(ctx))
        return Empty()

    def update_interfaces(
        self, ctx: Context, request: sandbox_pb2.UpdateInterfacesRequest
    ) -> Empty:
        self._pod.update_interfaces(decode_interfaces(request.interfaces), _deadline(ctx))
        return Empty()

    def update_routes(self, ctx: Context, request: sandbox_pb2.UpdateRoutesRequest) -> Empty:
        self._pod.update_routes(decode_routes(request.routes))
        return Empty()

    def exec_vm_process(
        self, ctx: Context, request: sandbox_pb2.ExecVMProcessRequest
    ) -> sandbox_pb2.ExecVMProcessResponse:
        from kuasar_agent.sandbox import commands

        out = commands.run(self._reaper, request.command, request.stdin, ctx.cancelled)
        return sandbox_pb2.ExecVMProcessResponse(out=out)

    def sync_clock(
        self, ctx: Context, request: sandbox_pb2.SyncClockPacket
    ) -> sandbox_pb2.SyncClockPacket:
        """Without a delta the guest's stamps are added; with one the clock is moved."""
        if request.Delta == 0:
            request.ClientArriveTime = request.ServerSendTime = time.time_ns()
        else:
            from kuasar_agent.sandbox import clock

            clock.adjust(request.Delta)
        return request

    @property
    def _pod(self) -> Pod:
        if self._made is None:
            self._made = self._make_pod()
        return self._made


def decode_interfaces(messages: Iterable[sandbox_pb2.Interface]) -> list[Interface]:
    """Raises InvalidArgument with the interface's name."""
    from kuasar_agent.linux.rtnetlink import IFF_NOARP
    from kuasar_agent.sandbox.interfaces import parse_interface

    return [
        parse_interface(
            message.name,
            message.hwAddr,
            [(address.address, address.mask) for address in message.IPAddresses],
            message.mtu,
            bool(message.raw_flags & IFF_NOARP),
        )
        for message in messages
    ]


def decode_routes(messages: Iterable[sandbox_pb2.Route]) -> list[Route]:
    """Raises InvalidArgument with the text at fault."""
    from kuasar_agent.sandbox.routes import parse_route

    return [
        parse_route(
            message.dest,
            message.gateway,
            message.device,
            message.source,
            version=6 if message.family == sandbox_pb2.v6 else 4,
            scope=message.scope,
            flags=message.flags,
        )
        for message in messages
    ]


def _deadline(ctx: Context) -> float | None:
    return None if ctx.deadline is None else ctx.deadline - _ANSWER_WITHIN

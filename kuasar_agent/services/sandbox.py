"""`grpc.SandboxService`: the requests of Kuasar's sandboxer that concern the guest as a whole.

Decode, call, encode. The modules that a handler calls are imported with its first call, so that the
agent serves earlier. Source: proto/kuasar_agent/api/sandbox.proto, whose names are Kuasar's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from google.protobuf.empty_pb2 import Empty

from kuasar_agent.api import events_pb2, sandbox_pb2
from kuasar_agent.events import EventQueue
from kuasar_agent.reaper import Reaper
from kuasar_agent.services.deadlines import deadline_of
from kuasar_agent.ttrpc import Context, cancellable

if TYPE_CHECKING:
    from kuasar_agent.sandbox.interfaces import Interface
    from kuasar_agent.sandbox.pod import Pod
    from kuasar_agent.sandbox.routes import Route

SERVICE = sandbox_pb2.DESCRIPTOR.services_by_name["SandboxService"]


class SandboxService:
    """Handlers of the sandbox service. Each may also answer Unknown, for the kernel's refusal."""

    def __init__(self, events: EventQueue, reaper: Reaper, make_pod: Callable[[], Pod]) -> None:
        """Take the parts; `make_pod` is called with the first request that concerns the pod."""
        self._events = events
        self._reaper = reaper
        self._make_pod = make_pod
        self._made: Pod | None = None

    def check(self, ctx: Context, request: sandbox_pb2.CheckRequest) -> Empty:
        """Answer: that is all that the host wants to know. It calls until the guest has booted."""
        return Empty()

    @cancellable
    def get_events(self, ctx: Context, request: Empty) -> events_pb2.Envelope:
        """Wait for the next event and return it.

        Each event goes to one caller. One that the connection did not take is the next event again.
        The host forwards it to containerd and stops calling at the first error.
        """
        envelope = self._events.take()
        ctx.on_undelivered(lambda: self._events.put_back(envelope))
        return envelope

    def setup_sandbox(self, ctx: Context, request: sandbox_pb2.SetupSandboxRequest) -> Empty:
        """Write sysctls, make the pod's namespaces, set interfaces and routes.

        The same request again changes nothing. NotFound: the configuration has another type, or an
        interface was not plugged in within the deadline. InvalidArgument: a text does not parse.
        """
        from kuasar_agent.sandbox import podconfig

        config = podconfig.parse(request.config.type_url, request.config.value)
        interfaces = decode_interfaces(request.interfaces)
        routes = decode_routes(request.routes)
        self._pod.set_up(config, interfaces, routes, deadline_of(ctx))
        return Empty()

    def update_interfaces(
        self, ctx: Context, request: sandbox_pb2.UpdateInterfacesRequest
    ) -> Empty:
        """Give the named interfaces, found by hardware address, their properties.

        Other interfaces stay as they are. Statuses as of SetupSandbox.
        """
        self._pod.update_interfaces(decode_interfaces(request.interfaces), deadline_of(ctx))
        return Empty()

    def update_routes(self, ctx: Context, request: sandbox_pb2.UpdateRoutesRequest) -> Empty:
        """Replace the main table's routes, except those that the kernel made.

        NotFound: the interface of a route does not exist. InvalidArgument: a text does not parse.
        """
        self._pod.update_routes(decode_routes(request.routes))
        return Empty()

    def exec_vm_process(
        self, ctx: Context, request: sandbox_pb2.ExecVMProcessRequest
    ) -> sandbox_pb2.ExecVMProcessResponse:
        """Run a command with /bin/bash in the guest, outside of every container.

        Unknown: the command ended with another status than 0; the text has its stderr. Cancelled:
        the caller hung up or its deadline passed, and the command's process group was killed.
        """
        from kuasar_agent.sandbox import commands

        out = commands.run(self._reaper, request.command, request.stdin, ctx.cancelled)
        return sandbox_pb2.ExecVMProcessResponse(out=out)

    def sync_clock(
        self, ctx: Context, request: sandbox_pb2.SyncClockPacket
    ) -> sandbox_pb2.SyncClockPacket:
        """Add the guest's two time stamps or, if the packet has a Delta, move the guest's clock.

        The host calls once a minute, and again with a Delta when the clocks are more than 10 ms
        apart. InvalidArgument: the Delta leads to a time that the kernel cannot represent.
        """
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
    """Return the domain's interfaces.

    Raises:
        InvalidArgument: a text does not parse; the message has the interface's name.
    """
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
    """Return the domain's routes.

    Raises:
        InvalidArgument: a text does not parse; the message has it.
    """
    from kuasar_agent.sandbox.routes import GivenRoute, parse_route

    return [
        parse_route(
            GivenRoute(
                message.dest,
                message.gateway,
                message.device,
                message.source,
                version=6 if message.family == sandbox_pb2.v6 else 4,
                scope=message.scope,
                flags=message.flags,
            )
        )
        for message in messages
    ]

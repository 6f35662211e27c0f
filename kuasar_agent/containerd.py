"""Conventions of containerd that several parts follow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from google.protobuf.any_pb2 import Any as AnyMessage
    from google.protobuf.message import Message

NAMESPACE = "k8s.io"
"""The namespace of the kubelet's containers in containerd: hosts run no others in a pod."""


class ExitStatus(Protocol):
    """The end of a process, as the reaper records it."""

    @property
    def status(self) -> int: ...

    @property
    def at_ns(self) -> int: ...


def set_exit(message: Any, exit: ExitStatus | None) -> None:
    """Set `exit_status` and `exited_at` of a message for a process that has exited."""
    if exit is not None:
        message.exit_status = exit.status
        message.exited_at.FromNanoseconds(exit.at_ns)


def pack(message: Message) -> AnyMessage:
    """Return an Any whose type is the message's bare name.

    containerd registers its types by bare names; Any.Pack would put a prefix in front of them.
    Source: github.com/containerd/typeurl.
    """
    # Imported late: before kuasar_agent.api it would import protobuf's implementation in Python.
    from google.protobuf.any_pb2 import Any as AnyMessage

    return AnyMessage(type_url=message.DESCRIPTOR.full_name, value=message.SerializeToString())

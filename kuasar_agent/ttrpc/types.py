"""Type variables of streams. Without arguments, a stream is of any message."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from typing_extensions import TypeVar

    Received = TypeVar("Received", bound=Message, default=Any)
    Sent = TypeVar("Sent", bound=Message, default=Any)
else:
    from typing import TypeVar

    Received = TypeVar("Received")
    Sent = TypeVar("Sent")

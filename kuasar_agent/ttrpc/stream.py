"""The state of one call, the same on both ends of a connection.

A call is in one of three states; `(none)` is an id without an entry in the stream table. Each end
applies the frames that it receives and those that it sends to its own copy of the state.

    state        frame of the client                  frame of the server
    -----------  -----------------------------------  --------------------------------
    (none)       Request -> OPEN or HALF_CLOSED (1)   ignored by the client
                 Data: refused or dropped (2)
    OPEN         Data -> OPEN                         Data -> OPEN
                 Data RC -> HALF_CLOSED               Data RC|ND, Response -> ENDED (3)
    HALF_CLOSED  Data: refused (4)                    Data -> HALF_CLOSED
                                                      Data RC|ND, Response -> ENDED (3)
    ENDED        Data: dropped (2)                    ignored by the client

Flags: RC (REMOTE_CLOSED) says that the sender of the frame sends nothing more; RO (REMOTE_OPEN) on
a Request, that Data follows; ND (NO_DATA), that the frame carries no message, as distinct from an
empty message.

(1) The method decides: a client-streaming or duplex call begins OPEN, a unary or server-streaming
    call, whose only message is in the Request, begins HALF_CLOSED. The flags of a Request are
    ignored, undefined ones included, as in Go's server.
(2) Ids grow, so an id up to the highest one seen is that of a call which has ended, or which was
    refused. The client may have sent Data before it saw that end: an answer would be an error on a
    call that succeeded. Data on a higher id breaks the protocol and is refused.
(3) A server-streaming or duplex call that succeeds ends with Data RC|ND. Every other call, and
    every call that fails, ends with a Response. Either frame ends both directions. An end that is
    found locally (a deadline, a lost connection, a full inbox) leads to ENDED as well.
    A handler may send Data RC|ND before it returns and still receive: the call is ENDED for its
    client and keeps its state on the server until the handler returns. containerd's half-close
    after the end of a stream is received this way.
(4) Data on a unary or server-streaming call gets no answer: the client would take any Response for
    the end of the call, which goes on.

Messages, in both directions:

- The payload of a Request is the first message if it is not empty or if the method takes a single
  message. An empty payload of a client-streaming or duplex call is no message.
- Data without ND is a message, even an empty one. With ND, a payload is ignored. RC beside a
  message is accepted; this package does not send it.
- A client opens a client-streaming or duplex call with RO|ND, the form that every server accepts.
- Messages received before the end stay in the inbox and can still be taken.

Sources: containerd/ttrpc server.go, stream.go and PROTOCOL.md; PROTOCOL.md of this package lists
where implementations differ.
"""

from __future__ import annotations

from collections import deque
from enum import Enum, auto
from typing import Any, Final, Protocol

from .status import StatusError

MESSAGE_OVERHEAD = 64
"""Bytes charged for each queued message, so that empty messages are bounded too."""


class State(Enum):
    """The states of the table above."""

    OPEN = auto()
    """Both ends may send messages."""
    HALF_CLOSED = auto()
    """The client has sent all its messages; the server may still send."""
    ENDED = auto()
    """The call is over on the wire and its id is out of the stream table."""


# An attribute of an Enum class costs more than a global, on the path of every message.
OPEN: Final = State.OPEN
HALF_CLOSED: Final = State.HALF_CLOSED
ENDED: Final = State.ENDED


class MethodKind(Protocol):
    """The kind of a method, which is all that a core needs to know of it."""

    @property
    def client_streaming(self) -> bool: ...

    @property
    def server_streaming(self) -> bool: ...


class Stream:
    """One call of a connection. The core changes it; handlers and callers only read it."""

    __slots__ = (
        "end_sent",
        "error",
        "id",
        "inbox",
        "inbox_size",
        "metadata",
        "method",
        "owner",
        "payload",
        "stall_mark",
        "state",
        "taken",
        "timeout_nano",
    )

    def __init__(self, stream_id: int, method: Any, payload: bytes) -> None:
        self.id = stream_id
        self.method = method
        self.payload = payload
        """Server: the single request message. Client: the single reply."""
        self.timeout_nano = 0
        self.metadata: tuple[tuple[str, str], ...] = ()
        self.inbox: deque[bytes] | None = None
        self.inbox_size = 0
        self.state = OPEN if method.client_streaming else HALF_CLOSED
        self.end_sent = False
        """Server: Data RC|ND was sent while the handler still runs."""
        self.error: StatusError | None = None
        """Why the call ended, unless it succeeded."""
        self.taken = 0
        self.stall_mark = -1
        """The value of `taken` when reading from the socket last paused; see `expire`."""
        self.owner: Any = None
        """Set and used by the adapter around the core."""

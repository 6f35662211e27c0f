"""Errors of the domain, by the kinds of containerd's errdefs.

The function that finds a fault raises the error for it, with a text for the caller; `services`
makes a ttrpc status of it in one place (`services/statuses.py`). A text that hosts compare is
marked `# contract` where it is raised, with the name of the host.

https://github.com/containerd/errdefs
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class AgentError(Exception):
    """A call that cannot be carried out, for a reason that its caller is told."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message)
        self.message = message


class Unknown(AgentError):
    """A failure of the kernel, the runtime or a device that no other kind describes."""


class Cancelled(AgentError):
    """Work that ended because its caller has gone."""


class InvalidArgument(AgentError):
    """A value in the request that no state of the guest could make valid."""


class DeadlineExceeded(AgentError):
    """A time limit that passed before the work was done."""


class NotFound(AgentError):
    """A name in the request that names nothing."""


class AlreadyExists(AgentError):
    """A name in the request that is taken."""


class ResourceExhausted(AgentError):
    """A limit that the work would exceed."""


class FailedPrecondition(AgentError):
    """A request that the present state does not allow."""


class Unimplemented(AgentError):
    """A request for a function that this guest does not have."""


class Unavailable(AgentError):
    """A service that does not answer now; the caller may try again."""


@contextmanager
def explained(step: str) -> Iterator[None]:
    """Turn an OSError of the block into `Unknown` with the step and the kernel's words."""
    try:
        yield
    except OSError as error:
        file = f": {error.filename}" if error.filename else ""
        raise Unknown(f"{step}: {error.strerror}{file}") from None

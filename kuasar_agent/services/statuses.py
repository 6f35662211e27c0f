"""The one place where errors of the domain become ttrpc statuses."""

from __future__ import annotations

from kuasar_agent import errors
from kuasar_agent.ttrpc import status

_STATUSES: dict[type[errors.AgentError], type[status.StatusError]] = {
    errors.Unknown: status.Unknown,
    errors.Cancelled: status.Cancelled,
    errors.InvalidArgument: status.InvalidArgument,
    errors.DeadlineExceeded: status.DeadlineExceeded,
    errors.NotFound: status.NotFound,
    errors.AlreadyExists: status.AlreadyExists,
    errors.ResourceExhausted: status.ResourceExhausted,
    errors.FailedPrecondition: status.FailedPrecondition,
    errors.Unimplemented: status.Unimplemented,
    errors.Unavailable: status.Unavailable,
}


def to_status(error: Exception) -> status.StatusError | None:
    """Return the status that the caller of a failed handler gets; None for a bug of the agent."""
    for kind in type(error).__mro__:
        if kind in _STATUSES:
            return _STATUSES[kind](str(error))
    return None

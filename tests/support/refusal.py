"""Calls that the agent refuses."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kuasar_agent.ttrpc import StatusError


def refusal(call: Callable[..., object], *args: object, **kwargs: object) -> StatusError:
    """Return the error that a call fails with; it has a message."""
    with pytest.raises(StatusError) as caught:
        call(*args, **kwargs)
    assert caught.value.message
    return caught.value

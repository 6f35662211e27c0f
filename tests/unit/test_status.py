"""Statuses from the wire."""

from __future__ import annotations

import pytest

from kuasar_agent.containers.runtime import RuntimeFailed
from kuasar_agent.ttrpc import Code, ConnectionClosed, StatusError, Unavailable, Unknown


@pytest.mark.parametrize(
    ("code", "general", "special"),
    [(Code.UNKNOWN, Unknown, RuntimeFailed), (Code.UNAVAILABLE, Unavailable, ConnectionClosed)],
)
def test_a_code_stands_for_the_general_class_not_for_a_special_one(
    code: int, general: type[StatusError], special: type[StatusError]
) -> None:
    assert issubclass(special, general)
    error = StatusError.from_code(code, "text")
    assert (type(error), error.code, error.message) == (general, code, "text")

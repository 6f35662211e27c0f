"""Status codes, and the errors of the domain that become them."""

from __future__ import annotations

import pytest

from kuasar_agent import errors
from kuasar_agent.containers.runtime import RuntimeFailed
from kuasar_agent.services.statuses import to_status
from kuasar_agent.ttrpc import Code, ConnectionClosed, StatusError, Unavailable

KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, errors.AgentError)
]


def test_a_code_stands_for_the_general_class_not_for_a_special_one() -> None:
    assert issubclass(ConnectionClosed, Unavailable)
    error = StatusError.from_code(Code.UNAVAILABLE, "text")
    assert type(error) is Unavailable


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind is not errors.AgentError])
def test_an_error_of_the_domain_has_the_status_of_its_name(kind: type[errors.AgentError]) -> None:
    status = to_status(kind("text"))
    assert status is not None
    assert (type(status).__name__, status.message) == (kind.__name__, "text")


def test_a_special_error_has_the_status_of_its_kind() -> None:
    status = to_status(RuntimeFailed("OCI runtime create failed", "no such file"))
    assert status is not None
    assert (status.code, status.message) == (2, "OCI runtime create failed: no such file")


def test_a_bug_is_no_status() -> None:
    assert to_status(KeyError("x")) is None

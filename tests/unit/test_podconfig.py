"""PodSandboxConfig in every JSON that a host may write."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kuasar_agent.errors import InvalidArgument, NotFound
from kuasar_agent.sandbox.podconfig import PodConfig, parse


def of(config: Any) -> PodConfig:
    return parse("PodSandboxConfig", json.dumps(config).encode())


def with_options(options: Any) -> Any:
    return {"linux": {"security_context": {"namespace_options": options}, "sysctls": {}}}


@pytest.mark.parametrize(
    ("options", "shared"),
    [
        ({"network": 0, "pid": 0, "ipc": 0}, True),
        ({"network": 0, "pid": 1}, False),
        ({"pid": 2}, False),
        ({"pid": 3}, False),
        ({"pid": "POD"}, True),
        ({"pid": "CONTAINER"}, False),
        ({"pid": None}, True),
        ({}, True),
        (None, False),
    ],
)
def test_pids_are_shared_in_the_mode_of_the_pod_only(options: Any, shared: bool) -> None:
    assert of(with_options(options)).share_pid is shared


def test_what_is_absent_or_null_has_its_default() -> None:
    nothing = PodConfig({}, False)
    for config in ({}, {"linux": None}, {"linux": {"security_context": None, "sysctls": None}}):
        assert of(config) == nothing


def test_camel_case_is_understood_too() -> None:
    linux = {"securityContext": {"namespaceOptions": {"pid": "POD"}}, "sysctls": {"a.b": "1"}}
    assert of({"linux": linux}) == PodConfig({"a.b": "1"}, True)


def test_sysctls_are_texts() -> None:
    assert of({"linux": {"sysctls": {"a": "1 2", "b": 3}}}).sysctls == {"a": "1 2", "b": "3"}


@pytest.mark.parametrize("url", ["", "runtime.v1.PodSandboxConfig", "x"])
def test_another_type_is_not_supported(url: str) -> None:
    with pytest.raises(NotFound) as raised:
        parse(url, b"{}")
    assert raised.value.message == f"SetUpSandbox/config/{url} is not supported"


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b"[" * 100_000,
        b'{"linux": 1}',
        b'{"linux": {"sysctls": []}}',
        b'{"linux": {"sysctls": {"a": null}}}',
        b'{"linux": {"security_context": {"namespace_options": {"pid": 4}}}}',
        b'{"linux": {"security_context": {"namespace_options": {"pid": "OURS"}}}}',
        b'{"linux": {"security_context": {"namespace_options": {"pid": true}}}}',
    ],
)
def test_what_makes_no_sense_is_an_invalid_argument(text: bytes) -> None:
    with pytest.raises(InvalidArgument, match=r"^convert PodSandboxConfig failed: "):
        parse("PodSandboxConfig", text)

"""PodSandboxConfig in every JSON that a host may write, and as the message itself."""

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


@pytest.mark.parametrize("url", ["", "runtime.v1.PodSandboxStatus", "x", "x/PodSandboxConfig"])
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


def field(number: int, value: bytes | int) -> bytes:
    """A field in protobuf's wire format; numbers and lengths here are below 128."""
    if isinstance(value, int):
        return bytes([number << 3, value])
    return bytes([number << 3 | 2, len(value)]) + value


def message(options: bytes | None) -> bytes:
    """The pod configuration of k8s.io/cri-api as containerd marshals it."""
    sysctl = field(1, b"net.core.somaxconn") + field(2, b"1024")
    # Beside the options: run_as_user, an empty seccomp profile, privileged.
    context = field(3, field(1, 7)) + field(9, b"") + field(6, 1)
    if options is not None:
        context += field(1, options)
    linux = field(1, b"/pod") + field(2, context) + field(3, sysctl) + field(4, b"")
    dns = field(1, b"10.0.0.10")
    metadata = field(1, b"name") + field(2, b"uid") + field(3, b"default") + field(4, 1)
    return field(1, metadata) + field(2, b"pod-1") + field(4, dns) + field(8, linux)


@pytest.mark.parametrize("prefix", ["", "type.googleapis.com/"])
@pytest.mark.parametrize(
    ("options", "shared"),
    [(b"", True), (field(2, 0), True), (field(2, 1), False), (field(2, 2), False), (None, False)],
)
def test_the_message_itself_is_understood(prefix: str, options: bytes | None, shared: bool) -> None:
    config = parse(f"{prefix}runtime.v1.PodSandboxConfig", message(options))
    assert config == PodConfig({"net.core.somaxconn": "1024"}, shared)


def test_an_empty_message_has_every_default() -> None:
    assert parse("runtime.v1.PodSandboxConfig", b"") == PodConfig({}, False)


@pytest.mark.parametrize("wire", [message(None)[:-1], b"{}", field(8, field(3, field(1, b"\xff")))])
def test_a_damaged_message_is_an_invalid_argument(wire: bytes) -> None:
    with pytest.raises(InvalidArgument, match=r"^convert PodSandboxConfig failed: "):
        parse("runtime.v1.PodSandboxConfig", wire)

"""The pod's configuration as the host sends it: CRI's PodSandboxConfig, in JSON.

Kuasar writes fields as in the .proto file and enums as numbers; protobuf's own JSON has camelCase
and names. Either is understood, and what is absent or null has protobuf's default.
Source: k8s.io/cri-api, pkg/apis/runtime/v1/api.proto.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from kuasar_agent.errors import InvalidArgument, NotFound

TYPE_URL = "PodSandboxConfig"

_NAMESPACE_MODES = ("POD", "CONTAINER", "NODE", "TARGET")


class PodConfig(NamedTuple):
    """The part that concerns the guest."""

    sysctls: dict[str, str]
    share_pid: bool
    """The containers see each other's processes."""


def parse(type_url: str, value: bytes) -> PodConfig:
    """Raises NotFound for another type, InvalidArgument for what does not parse."""
    if type_url != TYPE_URL:
        raise NotFound(f"SetUpSandbox/config/{type_url} is not supported")
    try:
        config = json.loads(value)
    except (ValueError, RecursionError) as error:
        raise _failed(str(error)) from None
    linux = _object({"config": config}, "config", "linux")
    options = _object(linux, "security_context", "namespace_options")
    values = _object(linux, "sysctls") or {}
    return PodConfig(
        {key: _text(key, value) for key, value in values.items()},
        # Without options the host shares no pids; within them POD is the default.
        options is not None and _mode(_get(options, "pid")) == "POD",
    )


def _object(parent: dict[str, Any] | None, *path: str) -> dict[str, Any] | None:
    """The object at the end of a path, None where it is absent."""
    for key in path:
        if parent is None:
            return None
        parent = _get(parent, key)
        if not (parent is None or isinstance(parent, dict)):
            raise _failed(f"{key} is no object")
    return parent


def _get(parent: dict[str, Any], key: str) -> Any:
    first, *rest = key.split("_")
    value = parent.get(key)
    return parent.get(first + "".join(map(str.title, rest))) if value is None else value


def _mode(value: Any) -> str:
    """A NamespaceMode by number or name."""
    if value is None:
        return _NAMESPACE_MODES[0]
    if isinstance(value, str) and value.upper() in _NAMESPACE_MODES:
        return value.upper()
    if type(value) is int and 0 <= value < len(_NAMESPACE_MODES):
        return _NAMESPACE_MODES[value]
    raise _failed(f"invalid namespace mode {value!r}")


def _text(key: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    if type(value) is int:
        return str(value)
    raise _failed(f"sysctl {key} has no text for a value")


def _failed(reason: str) -> InvalidArgument:
    return InvalidArgument(f"convert PodSandboxConfig failed: {reason}")

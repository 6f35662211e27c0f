"""The pod's configuration as the host sends it: CRI's PodSandboxConfig, as JSON or as protobuf.

The form follows from the type's name. Kuasar's host sends JSON with fields named as in the .proto
file and enums as numbers; protobuf's own JSON has camelCase and enum names. Either is understood,
and an absent or null field has protobuf's default. Other hosts send the message itself.

Source: k8s.io/cri-api, pkg/apis/runtime/v1/api.proto.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from kuasar_agent.errors import InvalidArgument, NotFound

JSON_TYPE = "PodSandboxConfig"  # contract: Kuasar's sandboxer
PROTOBUF_TYPE = "runtime.v1.PodSandboxConfig"

_NAMESPACE_MODES = ("POD", "CONTAINER", "NODE", "TARGET")


class PodConfig(NamedTuple):
    """The part of the configuration that concerns the guest."""

    sysctls: dict[str, str]
    share_pid: bool
    """Whether the containers see each other's processes."""


def parse(type_url: str, value: bytes) -> PodConfig:
    """Return the configuration in an Any of one of the two types.

    Raises:
        NotFound: the type is another one.
        InvalidArgument: the value does not parse.
    """
    if type_url == JSON_TYPE:
        return _from_json(value)
    if type_url.rpartition("/")[2] == PROTOBUF_TYPE:
        return _from_protobuf(value)
    # contract: the words of Kuasar's vmm-task
    raise NotFound(f"SetUpSandbox/config/{type_url} is not supported")


def _from_protobuf(value: bytes) -> PodConfig:
    # Imported late: Kuasar's host sends JSON.
    from google.protobuf.message import DecodeError

    from kuasar_agent.api import cri_pb2

    try:
        linux = cri_pb2.PodSandboxConfig.FromString(value).linux
    except DecodeError as error:
        raise _failed(str(error)) from None
    context = linux.security_context
    shares = context.HasField("namespace_options") and context.namespace_options.pid == cri_pb2.POD
    return PodConfig(dict(linux.sysctls), shares)


def _from_json(value: bytes) -> PodConfig:
    try:
        config = json.loads(value)
    except (ValueError, RecursionError) as error:
        raise _failed(str(error)) from None
    linux = _object({"config": config}, "config", "linux")
    options = _object(linux, "security_context", "namespace_options")
    values = _object(linux, "sysctls") or {}
    return PodConfig(
        {key: _text(key, value) for key, value in values.items()},
        # Without options the containers share no pid namespace; within them POD is the default.
        options is not None and _mode(_get(options, "pid")) == "POD",
    )


def _object(parent: dict[str, Any] | None, *path: str) -> dict[str, Any] | None:
    """Return the object at the end of a path, None where it is absent."""
    for key in path:
        if parent is None:
            return None
        parent = _get(parent, key)
        if not (parent is None or isinstance(parent, dict)):
            raise _failed(f"{key} is no object")
    return parent


def _get(parent: dict[str, Any], key: str) -> Any:
    """Return the value of a key written in snake_case or in camelCase."""
    first, *rest = key.split("_")
    value = parent.get(key)
    return parent.get(first + "".join(map(str.title, rest))) if value is None else value


def _mode(value: Any) -> str:
    """Return the name of a NamespaceMode given by number or name."""
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
    # contract: the words of Kuasar's vmm-task
    return InvalidArgument(f"convert PodSandboxConfig failed: {reason}")

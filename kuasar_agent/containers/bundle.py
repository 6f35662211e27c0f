"""The bundle: what the host left for one container in the shared directory.

    <state>/<id>/config.json         OCI runtime spec
    <state>/<id>/storage-<id>        storages the guest has to mount (JSON array)
    <state>/<id>/io-<id>             stdio of the container (JSON object)
    <state>/<id>/io-<id>-<exec id>   stdio of an exec; removed once it was read

The agent and the runtime add `init.pid` and `<exec id>.pid`.
"""

import json
import os
from contextlib import suppress
from typing import Any, NamedTuple

from kuasar_agent.errors import InvalidArgument, NotFound, Unknown
from kuasar_agent.stdio.urls import StdioUrls

STORAGES_ANNOTATION = "io.kuasar.storages"


class Bundle(NamedTuple):
    """A bundle as it was read."""

    path: str
    spec: dict[str, Any]
    storages: list[dict[str, Any]]
    stdio: StdioUrls | None
    """The io file's content, or None where there is no usable one."""

    @property
    def pid_file(self) -> str:
        return f"{self.path}/init.pid"

    @property
    def cgroups_path(self) -> str:
        """The container's cgroup below the root of every hierarchy, or empty."""
        return str((self.spec.get("linux") or {}).get("cgroupsPath") or "")

    @property
    def shares_pids(self) -> bool:
        """Whether the container joins another pid namespace instead of getting its own.

        When the init process ends, the kernel kills the others in a namespace of the container's
        own; in a shared one the agent has to.
        """
        namespaces = (self.spec.get("linux") or {}).get("namespaces") or []
        return not any(ns.get("type") == "pid" and not ns.get("path") for ns in namespaces)

    def merge_stdio(self, requested: StdioUrls) -> StdioUrls:
        """Return the streams of the init process; see `merge_stdio`."""
        return merge_stdio(requested, self.stdio, self.spec.get("process") or {})


def merge_stdio(
    requested: StdioUrls, given: StdioUrls | None, process: dict[str, Any]
) -> StdioUrls:
    """Return the streams of a process: those of the io file if there is one, else the request's.

    The process has a terminal if the io file, the request or the spec (`process`) asks for one:
    hosts of the newer sandbox API write `terminal: false` into every io file.
    """
    urls = given or requested
    terminal = urls.terminal or requested.terminal or bool(process.get("terminal"))
    return urls._replace(terminal=terminal)


def load_bundle(path: str, container_id: str) -> Bundle:
    """Read a bundle. Blocks on the share: call it off the hub.

    Raises NotFound for a missing file and InvalidArgument for one that makes no sense.
    """
    spec = _read_json(f"{path}/config.json")
    if (fault := _find_fault(spec)) is not None:
        raise InvalidArgument(f"{path}/config.json: {fault}")
    return Bundle(
        path=path,
        spec=spec,
        storages=_load_storages(f"{path}/storage-{container_id}", spec),
        stdio=load_stdio(f"{path}/io-{container_id}"),
    )


def write_spec(bundle: Bundle) -> None:
    """Replace config.json. Blocks on the share; raises Unknown when it cannot be written."""
    path = f"{bundle.path}/config.json"
    draft = f"{bundle.path}/.config.json"
    try:
        with open(draft, "w") as file:
            json.dump(bundle.spec, file)
        os.rename(draft, path)
    except OSError as error:
        with suppress(OSError):
            os.unlink(draft)
        raise Unknown(f"failed to write file {path}: {error.strerror}") from None


def load_stdio(path: str) -> StdioUrls | None:
    """An io file; None when it is absent or lacks a key, as then the request counts."""
    try:
        raw = _read_json(path)
    except (NotFound, InvalidArgument):
        return None
    if not isinstance(raw, dict):
        return None
    stdin, stdout, stderr = raw.get("stdin"), raw.get("stdout"), raw.get("stderr")
    terminal = raw.get("terminal")
    if not (
        isinstance(stdin, str)
        and isinstance(stdout, str)
        and isinstance(stderr, str)
        and isinstance(terminal, bool)
    ):
        return None
    return StdioUrls(stdin, stdout, stderr, terminal)


def _find_fault(spec: Any) -> str | None:
    """What is wrong with those parts of a spec that the agent looks into; the rest is OCI's."""
    if not isinstance(spec, dict):
        return "not a JSON object"
    for key in ("annotations", "process", "linux"):
        if not isinstance(spec.get(key) or {}, dict):
            return f"{key} is not an object"
    linux = spec.get("linux") or {}
    if not isinstance(linux.get("cgroupsPath") or "", str):
        return "linux.cgroupsPath is not a string"
    namespaces = linux.get("namespaces") or []
    if not isinstance(namespaces, list) or not all(isinstance(ns, dict) for ns in namespaces):
        return "linux.namespaces is not an array of objects"
    if not isinstance((spec.get("annotations") or {}).get(STORAGES_ANNOTATION) or "", str):
        return f"annotation {STORAGES_ANNOTATION} is not a string"
    return None


def _load_storages(path: str, spec: dict[str, Any]) -> list[dict[str, Any]]:
    text = (spec.get("annotations") or {}).get(STORAGES_ANNOTATION)
    if text is None:
        storages = _read_json(path)
    else:
        storages = parse_json(text, f"annotation {STORAGES_ANNOTATION}")
    if not isinstance(storages, list) or not all(isinstance(s, dict) for s in storages):
        raise InvalidArgument(f"storages in {os.path.dirname(path)}: not an array of objects")
    return storages


def _read_json(path: str) -> Any:
    try:
        with open(path, "rb") as file:
            text = file.read()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFound(f"failed to open file {path}: {error.strerror}") from None
    except IsADirectoryError as error:
        raise InvalidArgument(f"failed to read file {path}: {error.strerror}") from None
    return parse_json(text, path)


def parse_json(text: str | bytes, what: str) -> Any:
    """Decode JSON. Raises InvalidArgument, which begins with `what`."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"{what}: not valid JSON: {error}") from None

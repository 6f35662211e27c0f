"""Limits of an Update request: OCI's LinuxResources in JSON, checked as a whole before any write.

https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#control-groups
Devices and network classes do not change while a container runs; they are ignored.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from kuasar_agent.errors import InvalidArgument
from kuasar_agent.linux.cgroup_files import parse_list

UNLIMITED = -1
"""No limit, in every field that allows it."""

_PAGE_SIZE = re.compile(r"[1-9][0-9]*[KMG]B")
# Files of a controller; `cgroup.*` are not limits.
_UNIFIED_FILE = re.compile(r"(?!cgroup\.)[a-z_]+(\.[A-Za-z0-9_]+)+")
_INT64 = 1 << 63
_UINT64 = 1 << 64


class Memory(NamedTuple):
    """Bytes; None: unchanged (absent or 0 in the request)."""

    limit: int | None = None
    swap: int | None = None
    """Memory plus swap."""
    reservation: int | None = None
    kernel_tcp: int | None = None
    swappiness: int | None = None
    disable_oom_killer: bool | None = None


class Cpu(NamedTuple):
    """Times in microseconds; None: unchanged (absent or 0 in the request)."""

    shares: int | None = None
    quota: int | None = None
    period: int | None = None
    burst: int | None = None
    idle: int | None = None
    cpus: frozenset[int] = frozenset()
    mems: frozenset[int] = frozenset()


class Throttle(NamedTuple):
    """A limit of bytes or operations per second on a block device."""

    device: str
    """`major:minor`."""
    key: str
    """The key in v2's io.max: `rbps`, `wbps`, `riops` or `wiops`."""
    rate: int


class BlockIO(NamedTuple):
    """Weight (10 to 1000) and rates of block devices."""

    weight: int | None = None
    throttles: tuple[Throttle, ...] = ()


class Resources(NamedTuple):
    """The limits to change."""

    memory: Memory = Memory()
    cpu: Cpu = Cpu()
    block_io: BlockIO = BlockIO()
    pids: int | None = None
    hugepages: Mapping[str, int] = {}
    """Bytes by page size (`2MB`)."""
    rdma: Mapping[str, Mapping[str, int]] = {}
    """`hca_handle` and `hca_object` by device."""
    unified: Mapping[str, str] = {}
    """Values by file of cgroup v2."""


def parse(data: bytes, adapt: Callable[[dict[str, Any]], None] = lambda _: None) -> Resources:
    """Parse the JSON of an Update request, after `adapt` has changed it in place.

    Raises:
        InvalidArgument: a value has the wrong type or is out of range; the message names it.
    """
    try:
        root = _Section(json.loads(data), "")
        adapt(root.members)
        return Resources(
            memory=_memory(root.section("memory")),
            cpu=_cpu(root.section("cpu")),
            block_io=_block_io(root.section("blockIO")),
            pids=root.section("pids").limit("limit"),
            hugepages=_hugepages(root),
            rdma=_rdma(root.section("rdma")),
            unified=_unified(root.section("unified")),
        )
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"failed to parse resource spec: {error}") from None


class _Section:
    """A JSON object with typed access; members of another type raise ValueError."""

    def __init__(self, value: Any, name: str) -> None:
        if not isinstance(value, dict):
            raise ValueError(f"{name or 'the whole'} is not an object")
        self.members: dict[str, Any] = value
        self.name = name

    def section(self, key: str) -> _Section:
        value = self.members.get(key)
        return _Section({} if value is None else value, self._path(key))

    def sections(self, key: str) -> list[_Section]:
        values = self.members.get(key)
        if not isinstance(values, list | None):
            raise ValueError(f"{self._path(key)} is not an array")
        return [_Section(value, f"{self._path(key)}[{i}]") for i, value in enumerate(values or [])]

    def limit(self, key: str) -> int | None:
        """Return a number that may be UNLIMITED; None if it is 0 or absent."""
        value = self.number(key)
        if value is not None and value < UNLIMITED:
            raise ValueError(f"{self._path(key)} is negative")
        return value or None

    def number(self, key: str) -> int | None:
        value = self.members.get(key)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError(f"{self._path(key)} is not an integer")
        if not -_INT64 <= value < _UINT64:
            raise ValueError(f"{self._path(key)} is out of range")
        return value

    def natural(self, key: str) -> int:
        value = self.number(key)
        if value is None or value < 0:
            raise ValueError(f"{self._path(key)} is not a natural number")
        return value

    def positive(self, key: str) -> int | None:
        """Return a number above 0; None if it is 0 or absent."""
        return None if self.members.get(key) is None else self.natural(key) or None

    def flag(self, key: str) -> bool | None:
        value = self.members.get(key)
        if not isinstance(value, bool | None):
            raise ValueError(f"{self._path(key)} is not true or false")
        return value

    def text(self, key: str) -> str:
        value = self.members.get(key)
        if not isinstance(value, str | None):
            raise ValueError(f"{self._path(key)} is not a string")
        return value or ""

    def numbers(self, key: str) -> frozenset[int]:
        """Return a list of CPUs or nodes."""
        text = self.text(key)
        try:
            return parse_list(text)
        except ValueError:
            raise ValueError(f"{self._path(key)} is no list of numbers: {text!r}") from None

    def _path(self, key: str) -> str:
        return f"{self.name}.{key}" if self.name else key


SWAP_BELOW_LIMIT = "memory.swap is memory and swap together, and less than memory.limit"


def _memory(section: _Section) -> Memory:
    memory = Memory(
        limit=section.limit("limit"),
        swap=section.limit("swap"),
        reservation=section.limit("reservation"),
        kernel_tcp=section.limit("kernelTCP"),
        swappiness=section.number("swappiness"),
        disable_oom_killer=section.flag("disableOOMKiller"),
    )
    limit, swap = memory.limit, memory.swap
    if limit and swap and swap != UNLIMITED and not 0 < limit <= swap:
        raise ValueError(SWAP_BELOW_LIMIT)
    return memory


def _cpu(section: _Section) -> Cpu:
    return Cpu(
        shares=section.positive("shares"),
        quota=section.limit("quota"),
        period=section.positive("period"),
        burst=section.positive("burst"),
        idle=section.number("idle"),
        cpus=section.numbers("cpus"),
        mems=section.numbers("mems"),
    )


def _block_io(section: _Section) -> BlockIO:
    throttles = []
    for name, key in (
        ("throttleReadBpsDevice", "rbps"),
        ("throttleWriteBpsDevice", "wbps"),
        ("throttleReadIOPSDevice", "riops"),
        ("throttleWriteIOPSDevice", "wiops"),
    ):
        for entry in section.sections(name):
            device = f"{entry.natural('major')}:{entry.natural('minor')}"
            throttles.append(Throttle(device, key, entry.natural("rate")))
    return BlockIO(section.positive("weight"), tuple(throttles))


def _hugepages(root: _Section) -> dict[str, int]:
    limits = {}
    for entry in root.sections("hugepageLimits"):
        size = entry.text("pageSize")
        if not _PAGE_SIZE.fullmatch(size):
            raise ValueError(f"{entry.name}.pageSize is no size of a page: {size!r}")
        limits[size] = entry.natural("limit")
    return limits


def _rdma(section: _Section) -> dict[str, dict[str, int]]:
    devices = {}
    for device in section.members:
        entry = section.section(device)
        pairs = {"hca_handle": "hcaHandles", "hca_object": "hcaObjects"}
        values = {key: entry.number(name) for key, name in pairs.items()}
        devices[device] = {key: value for key, value in values.items() if value is not None}
    return devices


def _unified(section: _Section) -> dict[str, str]:
    for file in section.members:
        if not _UNIFIED_FILE.fullmatch(file):
            raise ValueError(f"unified names no file of a controller: {file!r}")
    return {file: section.text(file) for file in section.members}

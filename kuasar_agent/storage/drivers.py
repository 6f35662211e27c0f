"""The storage drivers: the mount that a storage stands for, and the device that it needs.

A driver checks the texts of a storage at once and returns a function that finds the device later,
so that no storage of a container is mounted before all of them are valid.
"""

import errno
import os
from collections.abc import Callable
from typing import Any, NamedTuple

from kuasar_agent.blocking import off_hub
from kuasar_agent.devices import Device, Devices
from kuasar_agent.errors import FailedPrecondition, InvalidArgument
from kuasar_agent.linux.files import read_text, write_text
from kuasar_agent.linux.mount import parse_options
from kuasar_agent.linux.superblock import detect
from kuasar_agent.log import get_logger
from kuasar_agent.storage import addresses

log = get_logger(__name__)

_PCI_BRIDGE = "0x0604"
_EPHEMERAL = ("tmpfs", "hugetlbfs")


class Storage(NamedTuple):
    """A storage in the host's description."""

    id: str
    driver: str
    source: str
    fstype: str
    mount_point: str
    host_source: str
    type: str
    options: tuple[str, ...]
    driver_options: tuple[str, ...]

    def is_same(self, other: "Storage") -> bool:
        """Return whether both stand for the same mount; their ids may differ."""
        return self._replace(id="") == other._replace(id="")


class Plan(NamedTuple):
    """A mount to make."""

    source: str
    fstype: str
    options: tuple[str, ...] = ()
    is_file: bool = False
    """Whether it covers a file instead of a directory."""
    absent: int = 0
    """The errno of mount(2) for a device that is not plugged in; 0 if there is none."""


class Directory(NamedTuple):
    """A directory to make, without a mount."""

    mode: int
    uid: int
    gid: int


Resolve = Callable[[Devices, float | None], Plan | Directory]
"""Waits for the device until a deadline on time.monotonic()'s clock; raises DeadlineExceeded."""


def parse_storage(raw: dict[str, Any]) -> Storage:
    """Return the storage of a JSON object; a key without a value counts as empty.

    Raises:
        InvalidArgument: a value has another type; the message names its key.
    """
    name = f"storage {raw.get('id') or raw.get('mount_point')!r}"

    def text(key: str) -> str:
        value = raw.get(key)
        if value is not None and (not isinstance(value, str) or "\0" in value):
            raise InvalidArgument(f"{name}: {key} is not a string")
        return value or ""

    def words(key: str) -> tuple[str, ...]:
        value = raw.get(key)
        if value is not None and not (
            isinstance(value, list) and all(isinstance(w, str) and "\0" not in w for w in value)
        ):
            raise InvalidArgument(f"{name}: {key} is not an array of strings")
        return tuple(value or ())

    return Storage(
        id=text("id"),
        driver=text("driver"),
        source=text("source"),
        fstype=text("fstype"),
        mount_point=text("mount_point"),
        host_source=text("host_source"),
        type=text("type"),
        options=words("options"),
        driver_options=words("driver_options"),
    )


def prepare(storage: Storage) -> Resolve:
    """Check a storage and return the function that finds its device.

    Raises:
        InvalidArgument: the storage is not valid; the message names it and the fault.
    """
    name = f"storage {storage.id or storage.mount_point}"
    driver = DRIVERS.get(storage.driver)
    if driver is None:
        raise InvalidArgument(f"{name}: unknown driver {storage.driver!r}")
    try:
        parse_options(storage.options)
        return driver(storage)
    except InvalidArgument as error:
        raise InvalidArgument(f"{name}: {error.message}") from None


def _blk(storage: Storage) -> Resolve:
    address = addresses.parse_pci(storage.source)

    def accept(device: Device, devices: Devices) -> bool:
        behind = _is_bridge(devices, address)
        return addresses.is_blk_at(device.devpath, address, behind_bridge=behind)

    return lambda devices, deadline: _disk(storage, accept, devices, deadline)


def _mmioblk(storage: Storage) -> Resolve:
    addresses.check_mmio(storage.source)

    def accept(device: Device, devices: Devices) -> bool:
        return addresses.is_mmio_at(device.devpath, storage.source)

    return lambda devices, deadline: _disk(storage, accept, devices, deadline)


def _scsi(storage: Storage) -> Resolve:
    address = addresses.parse_scsi(storage.source)

    def accept(device: Device, devices: Devices) -> bool:
        return addresses.is_scsi_at(device.devpath, address)

    def resolve(devices: Devices, deadline: float | None) -> Plan:
        off_hub(_scan_scsi, devices.sysfs, address)
        return _disk(storage, accept, devices, deadline)

    return resolve


def _nvdimm(storage: Storage) -> Resolve:
    if ":" in storage.source:
        address = addresses.parse_pci(storage.source)

        def accept(device: Device, devices: Devices) -> bool:
            behind = _is_bridge(devices, address)
            return addresses.is_pmem_at(device.devpath, address, behind_bridge=behind)

    else:
        name = addresses.parse_name(storage.source)

        def accept(device: Device, devices: Devices) -> bool:
            return device.name == name

    return lambda devices, deadline: _disk(storage, accept, devices, deadline)


def _ephemeral(storage: Storage) -> Resolve:
    fstype = storage.fstype or "tmpfs"
    if fstype not in _EPHEMERAL:
        raise InvalidArgument(f"fstype {fstype!r} is none of {', '.join(_EPHEMERAL)}")
    return lambda devices, deadline: Plan(storage.source or fstype, fstype, storage.options)


def _virtiofs(storage: Storage) -> Resolve:
    tag = _need_source(storage)
    return lambda devices, deadline: Plan(tag, "virtiofs", storage.options, absent=errno.EINVAL)


def _ninep(storage: Storage) -> Resolve:
    tag = _need_source(storage)
    options = storage.options
    for default in ("trans=virtio", "version=9p2000.L"):
        key = default.partition("=")[0]
        if not any(part.startswith(f"{key}=") for word in options for part in word.split(",")):
            options += (default,)
    return lambda devices, deadline: Plan(tag, "9p", options, absent=errno.ENOENT)


def _bind(storage: Storage) -> Resolve:
    source = _need_source(storage)
    if not source.startswith("/") or ".." in source.split("/"):
        raise InvalidArgument(f"source {source!r} is not an absolute path without '..'")

    def resolve(devices: Devices, deadline: float | None) -> Plan:
        is_file = not off_hub(os.path.isdir, source)
        return Plan(source, "bind", storage.options, is_file)

    return resolve


def _local(storage: Storage) -> Resolve:
    numbers = {"mode": 0o777, "uid": 0, "gid": 0}
    for word in storage.options:
        key, _, value = word.partition("=")
        if key not in numbers:
            log.debug("option of a local storage ignored", option=word)
            continue
        try:
            numbers[key] = int(value, 8 if key == "mode" else 10)
        except ValueError:
            numbers[key] = -1
        if not 0 <= numbers[key] <= (0o7777 if key == "mode" else 0xFFFFFFFE):
            raise InvalidArgument(f"option {word!r} is not a valid number")
    return lambda devices, deadline: Directory(**numbers)


DRIVERS: dict[str, Callable[[Storage], Resolve]] = {
    "9p": _ninep,
    "bind": _bind,
    "blk": _blk,
    "ephemeral": _ephemeral,
    "local": _local,
    "mmioblk": _mmioblk,
    "nvdimm": _nvdimm,
    "scsi": _scsi,
    "virtio-fs": _virtiofs,
}


def _disk(
    storage: Storage,
    accept: Callable[[Device, Devices], bool],
    devices: Devices,
    deadline: float | None,
) -> Plan:
    """Return a disk's file system or, with the type `bind`, the disk's node as a file."""
    what = f"{storage.driver} {storage.source}"
    device = devices.wait_for("block", lambda found: accept(found, devices), what, deadline)
    if storage.fstype == "bind":
        return Plan(device.node, "bind", storage.options, is_file=True)
    return Plan(device.node, storage.fstype or _detect(device, what), storage.options)


def _detect(device: Device, what: str) -> str:
    try:
        fstype = off_hub(detect, device.node)
    except OSError as error:
        raise FailedPrecondition(f"cannot read {what}: {error}") from None
    if fstype is None:
        raise InvalidArgument(f"no known file system on {what} ({device.node})")
    return fstype


def _need_source(storage: Storage) -> str:
    if not storage.source:
        raise InvalidArgument("source is empty")
    return storage.source


def _is_bridge(devices: Devices, address: addresses.PciAddress) -> bool:
    """Return whether the guest has a bridge in the slot that QEMU's hosts give as the bus."""
    if not 0 < address.bus <= 0x1F:
        return False
    bridge = addresses.PciAddress(address.domain, 0, address.bus, 0)
    try:
        kind = read_text(f"{devices.sysfs}/bus/pci/devices/{bridge}/class")
    except OSError:
        return False
    return kind.startswith(_PCI_BRIDGE)


def _scan_scsi(sysfs: str, address: addresses.ScsiAddress) -> None:
    """Have every virtio-scsi controller scan one address; a new controller scans all itself."""
    directory = f"{sysfs}/class/scsi_host"
    try:
        hosts = os.listdir(directory)
    except OSError:
        return  # the driver is not loaded
    for host in hosts:
        path = os.path.realpath(f"{directory}/{host}")
        if "/virtio" not in path:
            continue
        try:
            write_text(f"{path}/scan", f"0 {address.target} {address.unit}")
        except OSError as error:
            log.warning("SCSI scan failed", host=host, error=error)

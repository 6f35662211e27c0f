"""QEMU's command line for a configuration."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kuasar_host import accel
from kuasar_host.accel import Accelerator
from kuasar_host.config import Config, Disk, Nic, Share

MONITOR = "qmp.sock"
_KERNEL_WORDS = (
    "console=ttyS0 panic=-1 quiet cryptomgr.notests tsc=reliable no_timer_check rdinit=/init"
)


def command_line(
    config: Config, accelerator: Accelerator, initrd: Path | None, transports: Sequence[str]
) -> list[str]:
    """Return QEMU and its arguments; `transports` are those for vsock and the shared directory."""
    memory = f"memory-backend-memfd,id=mem,size={config.memory}M,share=on"
    root = config.root
    return [
        accel.QEMU,
        *accel.arguments(accelerator),
        *("-M", "q35,memory-backend=mem", "-object", memory),
        *("-m", f"{config.memory}M{root.memory() if root else ''}"),
        *("-smp", str(config.cpus)),
        *("-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio"),
        *("-qmp", f"unix:{MONITOR},server=on,wait=off", "-no-reboot"),
        *("-kernel", str(config.kernel.absolute())),
        *(("-initrd", str(initrd)) if initrd is not None else ()),
        # The root disk first: its name in the guest follows from its place.
        *(root.options() if root else ()),
        *transports,
        *(option for number in range(config.root_ports) for option in _slot(number + 1)),
        *(option for device in _devices(config) for option in device.options()),
        *config.arguments,
        *("-append", _kernel_words(config)),
    ]


def _devices(config: Config) -> list[Disk | Nic | Share]:
    return [*config.disks, *config.nics, *config.shares]


def _slot(number: int) -> list[str]:
    return ["-device", f"pcie-root-port,id=rp{number},chassis={number},slot={number}"]


def _kernel_words(config: Config) -> str:
    words = [_KERNEL_WORDS]
    if config.root is not None:
        words.append(config.root.words())
    words += [f"task.sharefs_type={config.sharefs}", config.append]
    return " ".join(words).strip()

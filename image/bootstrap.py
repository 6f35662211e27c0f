"""kuasar-boot.initrd: mounts kuasar.img under a kernel whose drivers are modules, as Debian's are.

Kuasar's own kernel and that of `make kernel` have the drivers built in and do not need it.
"""

from __future__ import annotations

import stat
from pathlib import Path

from image import elf
from image.contents import LIBRARIES
from image.layers import Layer
from image.tree import Node, Tree

INIT = Path(__file__).with_name("boot_init.sh")
BUSYBOX = "usr/bin/busybox"
COMMANDS = ("insmod", "mount", "sh", "switch_root", "umount", "usleep")


def tree(userland: Layer, kernel: Layer) -> Tree:
    """Return busybox with its libraries, the root disk's modules in load order, and an init."""
    source, modules = userland.tree(), kernel.tree()
    result = Tree()
    for path in ("dev", "proc", "sysroot"):
        result.directory(path)
    for path in ("bin", "sbin", "lib", "lib64"):
        result.add(path, source[path])
    result.add("dev/console", Node(stat.S_IFCHR | 0o600, device=(5, 1)))
    result.file("init", INIT.read_bytes(), mode=0o755)
    _add_program(result, source, BUSYBOX)
    for name in COMMANDS:
        result.link(f"usr/bin/{name}", "busybox")
    paths = kernel.about["modules"]["root"]
    for path in paths:
        result.add(path, modules[path])
    result.file("root.list", "".join(f"{path}\n" for path in paths).encode())
    return result


def _add_program(result: Tree, source: Tree, path: str) -> None:
    """Add a program or library, the targets of its links, and the libraries that it needs."""
    node = source[path]
    result.add(path, node)
    if node.is_link:
        _add_program(result, source, str(Path(path).parent / node.data.decode()))
        return
    if "usr/lib64/ld-linux-x86-64.so.2" not in result:
        result.add("usr/lib64/ld-linux-x86-64.so.2", source["usr/lib64/ld-linux-x86-64.so.2"])
        _add_program(result, source, f"{LIBRARIES}/ld-linux-x86-64.so.2")
    for name in elf.needed(node.data):
        if f"{LIBRARIES}/{name}" not in result:
            _add_program(result, source, f"{LIBRARIES}/{name}")

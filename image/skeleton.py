"""The part of the root file system that comes from no package."""

from __future__ import annotations

import stat
from pathlib import Path

from image.contents import LIBRARIES, PYTHON, SITE_PACKAGES, STDLIB
from image.tree import MERGED, Node, Tree

DIRECTORIES = (
    *("usr/bin", "usr/sbin", "usr/lib", "usr/lib64", "usr/lib/modules"),
    *("dev", "etc", "proc", "run", "sys", "var"),
)

# -I and -S: nothing from an environment or a site directory, and half the start-up.
INIT = f"""#!/{PYTHON} -IS
import sys
sys.path.append("/{SITE_PACKAGES}")
from kuasar_agent.init import main
main()
"""

STANDINS = ("zope/interface",)

FILES = {
    "etc/hosts": "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n",
    "etc/passwd": "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    "etc/group": "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    # The agent binds the sandbox's file over it, which works on a read-only root as well.
    "etc/resolv.conf": "",
}


def skeleton() -> Tree:
    """Return directories, links, small files and /dev/console, which the kernel opens first."""
    tree = Tree()
    for path in DIRECTORIES:
        tree.directory(path)
    tree.directory("root", mode=0o700)
    tree.directory("tmp", mode=0o1777)
    for path, target in MERGED.items():
        tree.link(path, target)
    tree.link("var/run", "../run")
    tree.link("usr/lib64/ld-linux-x86-64.so.2", f"/{LIBRARIES}/ld-linux-x86-64.so.2")
    tree.link("usr/bin/python3", PYTHON.rpartition("/")[2])
    for path, text in FILES.items():
        tree.file(path, text.encode(), group="other")
    tree.add("dev/console", Node(stat.S_IFCHR | 0o600, device=(5, 1)))
    tree.file("usr/sbin/init", INIT.encode(), mode=0o755, group="agent")
    tree.link("init", "/sbin/init")
    return tree


def add_standins(tree: Tree) -> None:
    """Add the small modules that replace large ones."""
    directory = Path(__file__).with_name("standins")
    for name in STANDINS:
        source = (directory / f"{name}.py").read_bytes()
        tree.file(f"{STDLIB}/{name}.py", source, group="stdlib")

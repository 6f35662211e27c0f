"""The kernel modules of the image, and the order in which PID 1 loads those that it lists."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from image.errors import BuildError
from image.files import run
from image.tree import Tree


class Wanted(NamedTuple):
    """Modules for one purpose, in the order of loading."""

    reason: str
    names: tuple[str, ...]


def names(group: Iterable[Wanted]) -> list[str]:
    """Return the names of a group of wanted modules."""
    return [name for wanted in group for name in wanted.names]


LOAD = (
    Wanted("finding virtio devices on PCI and MMIO", ("virtio_pci", "virtio_mmio")),
    Wanted("the console on hvc0, and ports for standard streams", ("virtio_console",)),
    Wanted("the agent's own way to the host", ("vmw_vsock_virtio_transport",)),
)
"""Loaded by PID 1 before it serves."""

SHARES = {
    "9p": (Wanted("the share over 9p", ("9pnet_virtio", "9p")),),
    "virtiofs": (Wanted("the share over virtiofs", ("virtiofs",)),),
}
"""Loaded before the share of this type is mounted; the kernel would load them too, through
/sbin/modprobe, but starting that takes longer than loading them."""

LATE = (
    Wanted("network interfaces", ("virtio_net",)),
    Wanted("disks, plugged in cold or hot", ("virtio_blk", "virtio_scsi")),
    Wanted(
        "SCSI disks; without the checksums at hand sd_mod would have the kernel look for them",
        ("crct10dif_generic", "crc64_rocksoft_generic", "sd_mod"),
    ),
    Wanted("persistent memory as a disk", ("nfit", "nd_pmem", "virtio_pmem")),
    Wanted("entropy from the host", ("virtio_rng",)),
    Wanted("memory that the host takes back, also by free page reporting", ("virtio_balloon",)),
    Wanted(
        "iptables in containers: the kernel asks for its tables, not for this itself",
        ("ip_tables", "ip6_tables"),
    ),
)
"""Drivers of devices, which no udev loads when a device appears. No call before SetupSandbox needs
one."""

ON_DEMAND = (
    Wanted("root file systems of containers", ("overlay",)),
    Wanted("volumes; ext4 asks for its checksum by name", ("ext4", "crc32c_generic", "erofs")),
    Wanted(
        "interfaces that containers make for themselves: Docker in a pod, VPNs, overlays",
        (
            *("bridge", "br_netfilter", "veth", "tun", "macvlan", "macvtap", "ipvlan", "vxlan"),
            *("dummy", "8021q"),
        ),
    ),
    Wanted(
        "packet filters that containers set up for themselves, such as a service mesh's",
        (
            *("iptable_filter", "iptable_nat", "iptable_mangle", "iptable_raw"),
            *("ip6table_filter", "ip6table_nat", "ip6table_mangle", "ip6table_raw"),
            *("xt_addrtype", "xt_cgroup", "xt_comment", "xt_connmark", "xt_conntrack", "xt_CT"),
            *("xt_limit", "xt_LOG", "xt_mark", "xt_MASQUERADE", "xt_multiport", "xt_nat"),
            *("xt_owner", "xt_physdev", "xt_REDIRECT", "xt_socket", "xt_statistic", "xt_TCPMSS"),
            *("xt_tcpudp", "xt_TPROXY", "ipt_REJECT", "ip6t_REJECT", "nf_conntrack_netlink"),
            *("nf_tables", "nft_compat", "nft_chain_nat", "nft_ct", "nft_fib_inet", "nft_limit"),
            *("nft_log", "nft_masq", "nft_nat", "nft_redir", "nft_reject_inet", "nft_tproxy"),
            "nft_socket",
        ),
    ),
)
"""Loaded by the kernel through /sbin/modprobe at the first use."""

LISTS = {"load": LOAD, **SHARES, "late": LATE}
"""Each becomes /lib/modules/<release>/<name>.list: absolute paths, one a line, in load order. A
list has every module that its own need, except those of load.list, which is loaded first."""

ROOT = (
    Wanted("the bus that the root disk is on", ("virtio_pci", "virtio_mmio")),
    Wanted("kuasar.img as a virtio disk", ("virtio_blk",)),
    Wanted("kuasar.img as persistent memory", ("nfit", "nd_pmem", "virtio_pmem")),
    Wanted("its file system", ("ext4", "crc32c_generic")),
)
"""Loaded by the initrd that mounts kuasar.img."""

LEFT_OUT = (
    ("vsock_loopback", "it would let any container reach the agent"),
    ("xfs, btrfs, nfs", "megabytes of memory in every guest for few volumes"),
    ("dm_verity", "no program in the guest sets up a mapping"),
    ("everything else", "drivers of hardware, or no program in the guest asks for it"),
)


_INDEXES = ("modules.dep", "modules.alias", "modules.builtin", "modules.devname")
"""Files of depmod: the first three for modprobe, the last for the agent."""


def canonical(name: str) -> str:
    """Return the name as the kernel shows it: file names may have dashes."""
    return name.replace("-", "_")


def name_of(path: str) -> str:
    return canonical(path.rpartition("/")[2].removesuffix(".ko"))


class Index:
    """The dependencies of the modules of one kernel; paths start at its directory."""

    def __init__(self, dependencies: Mapping[str, Sequence[str]], built_in: Iterable[str]) -> None:
        self.dependencies = dependencies
        self.paths = {name_of(path): path for path in dependencies}
        self.built_in = {name_of(path) for path in built_in}

    @classmethod
    def read(cls, directory: Path) -> Index:
        """Read modules.dep and modules.builtin of /lib/modules/<release>."""
        dependencies = {}
        for line in (directory / "modules.dep").read_text().splitlines():
            path, _, needs = line.partition(":")
            dependencies[path] = needs.split()
        return cls(dependencies, (directory / "modules.builtin").read_text().split())

    def load_order(self, wanted: Iterable[str], loaded: Sequence[str] = ()) -> list[str]:
        """Return the paths of the modules and of their dependencies, which come first.

        Args:
            wanted: their names; those built into the kernel need no loading.
            loaded: paths that are loaded already and are not listed again.

        Raises:
            BuildError: this kernel has no such module.
        """
        order = dict.fromkeys(loaded)
        for name in wanted:
            path = self.paths.get(canonical(name))
            if path is not None:
                self._visit(path, order)
            elif canonical(name) not in self.built_in:
                raise BuildError(f"this kernel has no module {name}")
        return [path for path in order if path not in loaded]

    def _visit(self, path: str, order: dict[str, None]) -> None:
        for dependency in self.dependencies[path]:
            if dependency not in order:
                self._visit(dependency, order)
        order[path] = None


def chosen(root: Path, release: str) -> tuple[Tree, dict[str, list[str]]]:
    """Take the modules out of an unpacked kernel package, which loses all others.

    Returns:
        The tree with the modules, the agent's lists and modprobe's index of them; and all lists,
        as paths from the root of the guest.
    """
    directory = root / "lib/modules" / release
    run(["depmod", "-b", root, release])
    index = Index.read(directory)
    first = index.load_order(names(LOAD))
    lists = {
        name: first if name == "load" else index.load_order(names(group), loaded=first)
        for name, group in LISTS.items()
    }
    listed = sorted({path for paths in lists.values() for path in paths})
    on_demand = index.load_order(names(ON_DEMAND), loaded=listed)
    travelling = {*listed, *on_demand}
    for path in index.dependencies.keys() - travelling:
        (directory / path).unlink()
    run(["depmod", "-b", root, release])

    tree = Tree()
    guest = f"lib/modules/{release}"
    for path in (*travelling, *_INDEXES):
        tree.file(f"{guest}/{path}", (directory / path).read_bytes(), group="modules")
    for name, paths in lists.items():
        text = "".join(f"/{guest}/{path}\n" for path in paths)
        tree.file(f"{guest}/{name}.list", text.encode(), group="modules")
    lists |= {"on demand": on_demand, "root": index.load_order(names(ROOT))}
    return tree, {name: [f"/{guest}/{path}" for path in paths] for name, paths in lists.items()}

"""Specifications before and after each rule, and guests to apply them in."""

from __future__ import annotations

from typing import Any

from kuasar_agent.containers.spec.guest import Guest

Json = dict[str, Any]

FILES = {"/sys/dev/block/254:0", "/sys/class/infiniband/mlx5_0", "/usr/bin/hook", "/netns"}
GUEST = Guest(
    cpus=frozenset({0, 1}),
    huge_pages=frozenset({"2MB"}),
    exists=FILES.__contains__,
)
RICH = GUEST._replace(
    swap=True, apparmor=frozenset({"unconfined", "mine"}), selinux=True, resctrl=True, cgroup=1
)


def process(**fields: Any) -> Json:
    return {"process": fields}


def linux(**fields: Any) -> Json:
    return {"linux": fields}


def limits(**fields: Any) -> Json:
    return linux(resources=fields)


def namespaces(*kinds: str | Json) -> list[Json]:
    return [{"type": kind} if isinstance(kind, str) else kind for kind in kinds]


# Rule, specification before and after, what is said. Each rule is applied alone.
CHANGED: list[tuple[str, Json, Json, list[str]]] = [
    (
        "no value",
        {
            "hostname": "",
            "hooks": None,
            "process": {"selinuxLabel": "", "console_size": None, "user": {"username": ""}},
            "mounts": [{"destination": "/a", "type": "", "source": None}],
            "linux": {
                "namespaces": [{"type": "pid", "path": ""}, {"type": "ipc", "path": "/ipc"}],
                "devices": [{"path": "/dev/a", "uid": None}],
                "resources": {"cpu": {"cpus": "", "quota": None}},
                "seccomp": {"listenerPath": ""},
                "mountLabel": "",
            },
        },
        {
            "process": {"user": {}},
            "mounts": [{"destination": "/a"}],
            "linux": {
                "namespaces": [{"type": "pid"}, {"type": "ipc", "path": "/ipc"}],
                "devices": [{"path": "/dev/a"}],
                "resources": {"cpu": {}},
                "seccomp": {},
            },
        },
        [
            "without value: hooks, hostname, linux.devices[].uid, linux.mountLabel, "
            "linux.namespaces[].path, linux.resources.cpu.cpus, linux.resources.cpu.quota, "
            "linux.seccomp.listenerPath, mounts[].source, mounts[].type, process.console_size, "
            "process.selinuxLabel, process.user.username"
        ],
    ),
    (
        "umask",
        process(user={"uid": 0, "umask": 0, "username": ""}),
        process(user={"uid": 0, "username": ""}),
        ["process.user.umask 0 removed"],
    ),
    (
        "memory limit of 0",
        limits(memory={"limit": 0, "swap": 0, "swappiness": 0, "reservation": 5}),
        limits(memory={"swappiness": 0, "reservation": 5}),
        ["linux.resources.memory.limit 0 removed", "linux.resources.memory.swap 0 removed"],
    ),
    (
        "version",
        {"ociVersion": "1.2.1"},
        {"ociVersion": "1.0.2"},
        ["ociVersion 1.2.1 is 1.0.2"],
    ),
    ("version", {"ociVersion": "1.3.0"}, {"ociVersion": "1.0.2"}, ["ociVersion 1.3.0 is 1.0.2"]),
    (
        "AppArmor",
        process(apparmorProfile="cri-containerd.apparmor.d"),
        process(),
        ["process.apparmorProfile cri-containerd.apparmor.d removed"],
    ),
    (
        "SELinux",
        {"process": {"selinuxLabel": "a:b:c"}, "linux": {"mountLabel": "d:e:f"}},
        {"process": {}, "linux": {}},
        ["process.selinuxLabel a:b:c removed", "linux.mountLabel d:e:f removed"],
    ),
    (
        "open files",
        process(
            rlimits=[
                {"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 1 << 30},
                {"type": "RLIMIT_CORE", "soft": 1 << 30, "hard": 1 << 30},
            ]
        ),
        process(
            rlimits=[
                {"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 1 << 20},
                {"type": "RLIMIT_CORE", "soft": 1 << 30, "hard": 1 << 30},
            ]
        ),
        ["process.rlimits: hard RLIMIT_NOFILE 1073741824 is 1048576"],
    ),
    (
        "CPU affinity",
        process(execCPUAffinity={"initial": "1-7", "final": "8"}),
        process(execCPUAffinity={"initial": "1"}),
        ["process.execCPUAffinity.initial 1-7 is 1", "process.execCPUAffinity.final 8 removed"],
    ),
    (
        "cpuset",
        limits(cpu={"cpus": "1-31", "mems": "1", "shares": 2}),
        limits(cpu={"cpus": "1", "shares": 2}),
        ["linux.resources.cpu.cpus 1-31 is 1", "linux.resources.cpu.mems 1 removed"],
    ),
    (
        "memory policy",
        linux(memoryPolicy={"mode": "MPOL_BIND", "nodes": "0-3"}),
        linux(memoryPolicy={"mode": "MPOL_BIND", "nodes": "0"}),
        ["linux.memoryPolicy.nodes 0-3 is 0"],
    ),
    (
        "memory policy",
        linux(memoryPolicy={"mode": "MPOL_BIND", "nodes": "3"}),
        linux(),
        ["linux.memoryPolicy.nodes 3 removed", "linux.memoryPolicy removed"],
    ),
    (
        "huge pages",
        limits(hugepageLimits=[{"pageSize": size, "limit": 0} for size in ("64KB", "2MB", "1GB")]),
        limits(hugepageLimits=[{"pageSize": "2MB", "limit": 0}]),
        ["linux.resources.hugepageLimits without 64KB, 1GB"],
    ),
    (
        "swap",
        limits(memory={"limit": 100, "swap": 200}),
        limits(memory={"limit": 100}),
        ["linux.resources.memory.swap 200 removed"],
    ),
    (
        "block devices",
        limits(
            blockIO={
                "weight": 5,
                "throttleReadBpsDevice": [
                    {"major": 8, "minor": 0, "rate": 5},
                    {"major": 254, "minor": 0, "rate": 5},
                ],
                "weightDevice": [{"major": 8, "minor": 16, "weight": 5}],
            }
        ),
        limits(
            blockIO={
                "weight": 5,
                "throttleReadBpsDevice": [{"major": 254, "minor": 0, "rate": 5}],
                "weightDevice": [],
            }
        ),
        [
            "linux.resources.blockIO.weightDevice without 8:16",
            "linux.resources.blockIO.throttleReadBpsDevice without 8:0",
        ],
    ),
    (
        "RDMA",
        limits(rdma={"mlx5_0": {"hcaHandles": 3}, "mlx5_1": {"hcaHandles": 3}}),
        limits(rdma={"mlx5_0": {"hcaHandles": 3}}),
        ["linux.resources.rdma without mlx5_1"],
    ),
    ("RDT", linux(intelRdt={"closID": "gold"}), linux(), ["linux.intelRdt removed"]),
    (
        "cgroup path",
        linux(cgroupsPath="a-b.slice:cri-containerd:c1"),
        linux(cgroupsPath="/a.slice/a-b.slice/cri-containerd-c1.scope"),
        ["linux.cgroupsPath is /a.slice/a-b.slice/cri-containerd-c1.scope"],
    ),
    (
        "network of the host",
        linux(namespaces=namespaces("pid", {"type": "network", "path": "/proc/77/ns/net"})),
        linux(namespaces=namespaces("pid")),
        ["linux.namespaces without network /proc/77/ns/net"],
    ),
    (
        "cgroup namespace",
        linux(namespaces=namespaces("pid")),
        linux(namespaces=namespaces("pid", "cgroup")),
        ["linux.namespaces with cgroup"],
    ),
    (
        "hostname",
        linux(
            namespaces=namespaces("uts"), sysctl={"kernel.hostname": "h", "kernel.domainname": "d"}
        ),
        linux(namespaces=namespaces("uts"), sysctl={"kernel.domainname": "d"}) | {"hostname": "h"},
        ["linux.sysctl kernel.hostname is hostname h"],
    ),
    (
        "sysctls",
        linux(
            namespaces=namespaces("ipc", {"type": "uts", "path": "/pod/uts"}),
            sysctl={
                "kernel.shmmax": "5",
                "kernel.domainname": "d",
                "net.ipv4.ip_unprivileged_port_start": "0",
                "vm.overcommit_memory": "1",
            },
        ),
        linux(
            namespaces=namespaces("ipc", {"type": "uts", "path": "/pod/uts"}),
            sysctl={"kernel.shmmax": "5", "kernel.domainname": "d"},
        ),
        [
            "linux.sysctl net.ipv4.ip_unprivileged_port_start is written in the guest",
            "linux.sysctl vm.overcommit_memory is written in the guest",
        ],
    ),
    (
        "hooks",
        {
            "hooks": {
                "prestart": [{"path": "/usr/bin/gone"}, {"path": "/usr/bin/hook"}],
                "startContainer": [{"path": "/in/the/container"}],
            }
        },
        {
            "hooks": {
                "prestart": [{"path": "/usr/bin/hook"}],
                "startContainer": [{"path": "/in/the/container"}],
            }
        },
        ["hooks.prestart without /usr/bin/gone"],
    ),
    (
        "seccomp architectures",
        linux(seccomp={"architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_LOONGARCH64"]}),
        linux(seccomp={"architectures": ["SCMP_ARCH_X86_64"]}),
        ["linux.seccomp.architectures without SCMP_ARCH_LOONGARCH64"],
    ),
]

# Rule and a specification that it leaves alone in a guest that has everything.
KEPT: list[tuple[str, Json]] = [
    ("no value", process(capabilities={"inheritable": []}, rlimits=[], cwd="", args=["", "a"])),
    ("no value", linux(maskedPaths=[], readonlyPaths=[], sysctl={"kernel.domainname": ""})),
    ("no value", {"annotations": {"a": ""}, "root": {"readonly": False}}),
    ("umask", process(user={"umask": 0})),
    ("umask", process(user={"umask": 18, "username": ""})),
    ("memory limit of 0", limits(memory={"limit": -1, "swappiness": 0})),
    ("version", {"ociVersion": "1.0.2-dev"}),
    ("version", {"ociVersion": "1.1.0"}),
    ("version", {"ociVersion": "2.0.0"}),
    ("AppArmor", process(apparmorProfile="mine")),
    ("AppArmor", process(apparmorProfile="unconfined")),
    ("SELinux", process(selinuxLabel="a:b:c")),
    ("open files", process(rlimits=[{"type": "RLIMIT_NOFILE", "soft": 9, "hard": 1 << 20}])),
    ("CPU affinity", process(execCPUAffinity={"initial": "0-1"})),
    ("cpuset", limits(cpu={"cpus": "0,1", "mems": "0"})),
    ("memory policy", linux(memoryPolicy={"mode": "MPOL_LOCAL"})),
    ("huge pages", limits(hugepageLimits=[{"pageSize": "2MB", "limit": 5}])),
    ("swap", limits(memory={"limit": 100, "swap": 200})),
    ("block devices", limits(blockIO={"weightDevice": [{"major": 254, "minor": 0}]})),
    ("RDMA", limits(rdma={"mlx5_0": {"hcaHandles": 3}})),
    ("RDT", linux(intelRdt={"closID": "gold"})),
    ("cgroup path", linux(cgroupsPath="/kubepods/pod1/c1")),
    ("network of the host", linux(namespaces=namespaces("network"))),
    ("network of the host", linux(namespaces=[{"type": "network", "path": "/netns"}])),
    ("cgroup namespace", linux(namespaces=namespaces("pid"))),
    ("hostname", linux(sysctl={"kernel.hostname": "h"})),
    ("sysctls", linux(namespaces=namespaces("network"), sysctl={"net.core.somaxconn": "1"})),
    ("hooks", {"hooks": {"prestart": [{"path": "/usr/bin/hook"}]}}),
    ("seccomp architectures", linux(seccomp={"architectures": ["SCMP_ARCH_X86"]})),
]

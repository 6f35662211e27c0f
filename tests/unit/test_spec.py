"""The rules that adapt a host's specification to the guest, each with its own cases."""

from __future__ import annotations

import copy
import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kuasar_agent.containers.spec import adapt_container, adapt_process, adapt_resources
from kuasar_agent.containers.spec.container import systemd_path
from kuasar_agent.containers.spec.guest import Guest, read_guest
from kuasar_agent.containers.spec.job import Job
from kuasar_agent.containers.spec.rules import RULES
from kuasar_agent.errors import InvalidArgument
from tests.support.host_specs import CAPTURED

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
DOCS = Path(__file__).parents[2] / "docs/pods.md"


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


def change(name: str, spec: Json, job: Job) -> list[str]:
    (rule,) = (rule for rule in RULES if rule.name == name)
    return list(rule.change(spec, job))


@pytest.mark.parametrize(("name", "before", "after", "said"), CHANGED)
def test_a_rule_changes_its_fields_once(
    name: str, before: Json, after: Json, said: list[str]
) -> None:
    spec = copy.deepcopy(before)
    assert change(name, spec, Job(GUEST)) == said
    assert spec == after
    assert change(name, spec, Job(GUEST)) == []
    assert spec == after


@pytest.mark.parametrize(("name", "spec"), KEPT)
def test_a_rule_leaves_alone_what_the_guest_has(name: str, spec: Json) -> None:
    before = copy.deepcopy(spec)
    assert change(name, spec, Job(RICH)) == []
    assert spec == before


def test_every_rule_is_tested() -> None:
    names = [rule.name for rule in RULES]
    assert len(set(names)) == len(names)
    terminals = {"terminal", "terminal size"}
    assert {name for name, *_ in CHANGED} == set(names) - terminals
    assert {name for name, _ in KEPT} == set(names) - terminals


def test_the_terminal_is_the_one_that_was_asked_for() -> None:
    spec = process(terminal=False, args=["a"])
    adapt_process(spec["process"], terminal=True, size=(100, 30), guest=GUEST)
    size = {"height": 30, "width": 100}
    assert spec == process(terminal=True, args=["a"], consoleSize=size)
    adapt_process(spec["process"], terminal=False, guest=GUEST)
    assert spec["process"]["terminal"] is False
    spec = process(args=["a"])
    adapt_process(spec["process"], terminal=False, size=(100, 30), guest=GUEST)
    assert spec == process(args=["a"])


def test_sysctls_are_handed_to_the_caller() -> None:
    spec = linux(namespaces=[], sysctl={"net.core.somaxconn": "5"})
    assert adapt_container(spec, terminal=False, guest=RICH) == {"net.core.somaxconn": "5"}
    assert adapt_container(spec, terminal=False, guest=RICH) is None
    with pytest.raises(InvalidArgument, match="invalid sysctl name"):
        adapt_container(linux(sysctl={"a/../b": "1"}), terminal=False, guest=RICH)


def test_an_exec_and_an_update_get_the_rules_for_their_fields() -> None:
    exec = {"apparmorProfile": "cri-containerd.apparmor.d", "selinuxLabel": "", "oomScoreAdj": None}
    adapt_process(exec, terminal=False, guest=GUEST)
    assert exec == {}
    update = {
        "cpu": {"cpus": "0-7", "mems": ""},
        "hugepageLimits": [{"pageSize": "1GB", "limit": 0}],
    }
    adapt_resources(update, guest=GUEST)
    assert update == {"cpu": {"cpus": "0-1"}, "hugepageLimits": []}


def test_what_kuasar_fills_in_is_gone_at_once() -> None:
    spec = json.loads(CAPTURED.read_text())
    adapt_container(spec, terminal=False, guest=GUEST)
    assert spec["process"]["user"] == {"uid": 0, "gid": 0, "additionalGids": [0]}
    assert sorted(spec) == ["annotations", "linux", "mounts", "ociVersion", "process", "root"]
    again = copy.deepcopy(spec)
    assert adapt_container(spec, terminal=False, guest=GUEST) is None
    assert spec == again


def test_one_line_says_what_was_changed(capfd: pytest.CaptureFixture[str]) -> None:
    spec = {"ociVersion": "1.2.0", "process": {"apparmorProfile": "p"}}
    adapt_container(spec, terminal=False, guest=RICH, id="c1")
    (line,) = [line for line in capfd.readouterr().err.splitlines() if "spec changed" in line]
    assert re.search("warn.*id=c1", line, re.IGNORECASE)
    assert "ociVersion 1.2.0 is 1.0.2; process.apparmorProfile p removed" in line
    adapt_container(spec, terminal=False, guest=RICH, id="c1")
    assert "spec changed" not in capfd.readouterr().err


def test_the_guest_is_read_from_this_machine() -> None:
    guest = read_guest()
    assert 0 in guest.cpus
    assert 0 in guest.mems
    assert guest.open_files >= 1024
    assert guest.architectures


_KEYS = sorted(set(re.findall(r"[A-Za-z_]+", json.dumps([case[1] for case in CHANGED]))))
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.sampled_from(_KEYS),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_KEYS), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(st.sampled_from(CHANGED), st.data())
def test_values_of_any_type_are_no_traceback(
    case: tuple[str, Json, Json, list[str]], data: st.DataObject
) -> None:
    spec = copy.deepcopy(case[1])
    _spoil(spec, data)
    with suppress(InvalidArgument):
        adapt_container(spec, terminal=False, guest=GUEST)


def _spoil(holder: Json, data: st.DataObject) -> None:
    """Replace one value, at some depth, by any other."""
    key = data.draw(st.sampled_from(sorted(holder)))
    inner = holder[key]
    if isinstance(inner, dict) and inner and data.draw(st.booleans()):
        _spoil(inner, data)
    elif (
        isinstance(inner, list)
        and inner
        and isinstance(inner[0], dict)
        and inner[0]
        and data.draw(st.booleans())
    ):
        _spoil(inner[0], data)
    else:
        holder[key] = data.draw(_VALUES)


@pytest.mark.parametrize(
    ("path", "translated"),
    [
        ("", ""),
        ("/kubepods/pod1/c1", "/kubepods/pod1/c1"),
        ("system.slice:docker:c1", "/system.slice/docker-c1.scope"),
        (
            "kubepods-besteffort-pod1.slice:cri-containerd:c1",
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod1.slice/"
            "cri-containerd-c1.scope",
        ),
        ("-.slice:docker:c1", "/docker-c1.scope"),
        (":docker:c1", "/docker-c1.scope"),
        ("a.slice::c1", "/a.slice/c1.scope"),
        ("a.slice:docker:b.slice", "/a.slice/b.slice"),
        ("/a:b:c", "/a:b:c"),
        ("a:b", "a:b"),
    ],
)
def test_a_cgroup_in_systemds_notation_becomes_a_path(path: str, translated: str) -> None:
    assert systemd_path(path) == translated


def test_the_page_for_users_has_the_rules_as_they_are() -> None:
    rows = [line for line in DOCS.read_text().splitlines() if line.startswith("| ")]
    table = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in rows]
    start = next(i for i, row in enumerate(table) if row[0] == "Rule")
    expected = [
        [rule.name, ", ".join(rule.on), rule.fields, rule.does, f"{rule.why} ({rule.source})"]
        for rule in RULES
    ]
    assert table[start + 1 : start + 1 + len(RULES)] == expected

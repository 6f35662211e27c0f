"""Specifications of real hosts: containerd's by version, and what Kuasar's host makes of them.

The files in tests/fixtures/specs are the output of the Go program tests/interop/go/specs, built
with each version of containerd. `python -m tests.support.host_specs` writes them again; a test in
tests/interop compares one version with its file.
"""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from tests.support.go_build import BUILD, HERE, go_module_program

FIXTURES = Path(__file__).parents[1] / "fixtures/specs"
CAPTURED = FIXTURES / "kuasar-captured.json"
"""A container's config.json as Kuasar's host wrote it for containerd 2.1."""

VERSIONS = tuple(sorted(path.name for path in (HERE / "go/specs/modules").iterdir()))
KINDS = ("pause", "container", "ctr")

Json = dict[str, Any]

# containerd 1's packages by the names that they have in containerd 2, longest first.
_IN_CONTAINERD_1 = {
    "containerd/v2/internal/cri/": "containerd/pkg/cri/",
    "containerd/v2/core/": "containerd/",
    "containerd/v2/pkg/oci": "containerd/oci",
    "containerd/v2/pkg/namespaces": "containerd/namespaces",
    "containerd/v2/": "containerd/",
}


def load(version: str) -> dict[str, Json]:
    """Return the specifications of a version of containerd: `pause`, `container`, `ctr`, `exec`."""
    found: dict[str, Json] = json.loads((FIXTURES / f"containerd-{version}.json").read_text())
    return found


def generate(version: str) -> dict[str, Json]:
    """Build the program with a version of containerd and return what it prints."""
    major, minor, _ = version.split(".")
    source = BUILD / "host-specs" / version
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(HERE / "go/specs/modules" / version, source)
    for file in (HERE / "go/specs").glob("*.go"):
        text = file.read_text()
        if major == "1":
            for name, old in _IN_CONTAINERD_1.items():
                text = text.replace(name, old)
        (source / file.name).write_text(text)
    tag = "containerd_2" if major == "2" else f"containerd_{major}_{minor}"
    program = go_module_program(f"specs-{version}", source, tags=tag)
    output = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    found: dict[str, Json] = json.loads(output)
    return found


def write(version: str) -> None:
    """Replace the file of a version."""
    text = json.dumps(generate(version), indent=1, sort_keys=True) + "\n"
    (FIXTURES / f"containerd-{version}.json").write_text(text)


def as_kuasar_writes(spec: Json) -> Json:
    """Return the specification as Kuasar's host writes it into the shared directory.

    Its types have every field, know fewer of them, and write most of those that are empty; its
    handlers change namespaces, AppArmor and CPUs. Sources: rust-extensions' sandbox/src/spec.rs,
    Kuasar's vmm/sandbox/src/container/handler (spec.rs, ns.rs, storage.rs).
    """
    spec = copy.deepcopy(spec)
    linux = spec["linux"]
    return {
        "ociVersion": spec["ociVersion"],
        "process": _process(spec["process"]),
        "root": {"readonly": False} | spec["root"],
        "hostname": spec.get("hostname", ""),
        "mounts": [_mount(mount) for mount in spec["mounts"]],
        "hooks": spec.get("hooks"),
        "annotations": {"io.kuasar.storages": "[]"} | spec.get("annotations", {}),
        "linux": {
            "uidMappings": [],
            "gidMappings": [],
            "sysctl": linux.get("sysctl", {}),
            "resources": _resources(linux["resources"]),
            "cgroupsPath": linux.get("cgroupsPath", ""),
            "namespaces": _namespaces(linux["namespaces"]),
            "devices": linux.get("devices", []),
            "seccomp": _seccomp(linux.get("seccomp")),
            "maskedPaths": linux.get("maskedPaths", []),
            "readonlyPaths": linux.get("readonlyPaths", []),
            "intelRdt": linux.get("intelRdt"),
        },
        "vm": None,
        "solaris": None,
        "windows": None,
    }


def _process(process: Json) -> Json:
    user = {"uid": 0, "gid": 0, "umask": 0, "additionalGids": [], "username": ""}
    sets = ("bounding", "effective", "inheritable", "permitted", "ambient")
    return {
        "terminal": process.get("terminal", False),
        "console_size": None,
        "user": user | process["user"],
        "args": process["args"],
        "commandLine": "",
        "env": process.get("env", []),
        "cwd": process["cwd"],
        "capabilities": {each: [] for each in sets} | process.get("capabilities", {}),
        "rlimits": process.get("rlimits", []),
        "noNewPrivileges": process.get("noNewPrivileges", False),
        "oomScoreAdj": process.get("oomScoreAdj"),
        "selinuxLabel": process.get("selinuxLabel", ""),
    }


def _mount(mount: Json) -> Json:
    return {"type": "", "source": "", "options": []} | mount


def _resources(resources: Json) -> Json:
    written: Json = {"devices": [], "hugepageLimits": [], "rdma": {}} | resources
    memory = ("limit", "reservation", "swap", "kernel", "kernelTCP", "swappiness")
    if "memory" in resources:
        nulls = dict.fromkeys((*memory, "disableOOMKiller"))
        written["memory"] = nulls | resources["memory"]
    if "cpu" in resources:
        cpu = ("shares", "quota", "period", "realtimeRuntime", "realtimePeriod")
        written["cpu"] = dict.fromkeys(cpu) | {"mems": ""} | resources["cpu"] | {"cpus": ""}
    return written


def _namespaces(namespaces: list[Json]) -> list[Json]:
    left = [entry for entry in namespaces if entry["type"] not in ("network", "cgroup")]
    shared = ("ipc", "uts")
    return [
        {"type": kind, "path": f"/run/sandbox-ns/{kind}"} if kind in shared else {"type": kind}
        for kind in (entry["type"] for entry in left)
    ]


def _seccomp(seccomp: Json | None) -> Json | None:
    if seccomp is None:
        return None
    argument = {"value": 0, "valueTwo": 0}
    return {
        "defaultAction": seccomp["defaultAction"],
        "architectures": seccomp.get("architectures", []),
        "syscalls": [
            {
                "names": call["names"],
                "action": call["action"],
                "args": [argument | each for each in call.get("args", [])],
            }
            for call in seccomp.get("syscalls", [])
        ],
    }


if __name__ == "__main__":
    for each in VERSIONS:
        write(each)

"""The rules that adapt a host's specification to the guest, each with its own cases."""

from __future__ import annotations

import copy
import json
import re
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kuasar_agent.containers.spec import adapt_container, adapt_process, adapt_resources
from kuasar_agent.containers.spec.container import systemd_path
from kuasar_agent.containers.spec.guest import read_guest
from kuasar_agent.containers.spec.job import Job
from kuasar_agent.containers.spec.rules import RULES
from kuasar_agent.errors import InvalidArgument
from tests.support.host_specs import CAPTURED
from tests.support.spec_cases import CHANGED, GUEST, KEPT, RICH, Json, linux, process

DOCS = Path(__file__).parents[2] / "docs/pods.md"


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

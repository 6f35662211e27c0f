"""Names of kernel parameters: their files and their namespaces."""

from __future__ import annotations

from pathlib import Path

import pytest

from kuasar_agent.errors import InvalidArgument, Unknown
from kuasar_agent.linux.sysctls import find, split, write


@pytest.fixture
def top(tmp_path: Path) -> str:
    for name in ("eth0", "eth0.100", "all"):
        (tmp_path / "net/ipv4/conf" / name).mkdir(parents=True)
        (tmp_path / "net/ipv4/conf" / name / "forwarding").write_text("0\n")
    return str(tmp_path)


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("net.ipv4.conf.all.forwarding", "net/ipv4/conf/all/forwarding"),
        ("net/ipv4/conf/all/forwarding", "net/ipv4/conf/all/forwarding"),
        ("net.ipv4.conf.eth0.forwarding", "net/ipv4/conf/eth0/forwarding"),
        ("net.ipv4.conf.eth0.100.forwarding", "net/ipv4/conf/eth0.100/forwarding"),
        ("net.ipv4.conf.eth0/100.forwarding", "net/ipv4/conf/eth0.100/forwarding"),
        ("net/ipv4/conf/eth0.100/forwarding", "net/ipv4/conf/eth0.100/forwarding"),
        ("net.ipv4.no_such", "net/ipv4/no_such"),
    ],
)
def test_dots_and_slashes_lead_to_the_file(top: str, key: str, path: str) -> None:
    assert find(key, top) == f"{top}/{path}"


@pytest.mark.parametrize("key", ["", ".", "..", "a..b", "a/../b", "/etc/passwd", "a.", "a\0b"])
def test_a_name_that_is_none_is_refused(key: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid sysctl name"):
        split({key: "1"})


def test_a_parameter_of_ipv6_is_left_out_where_the_kernel_has_none(top: str) -> None:
    values = {"net.ipv6.conf.all.disable_ipv6": "1", "net.ipv4.conf.all.forwarding": "1"}
    write(values, top)
    assert Path(top, "net/ipv4/conf/all/forwarding").read_text().startswith("1")
    Path(top, "net/ipv6").mkdir()
    with pytest.raises(Unknown, match="disable_ipv6"):
        write(values, top)


def test_a_value_is_written_and_a_failure_named(top: str) -> None:
    write({"net.ipv4.conf.eth0.100.forwarding": "1"}, top)
    assert Path(top, "net/ipv4/conf/eth0.100/forwarding").read_text().startswith("1")
    with pytest.raises(Unknown) as raised:
        write({"net.no": "1"}, top)
    text = "failed to set sysctl net.no to 1 error: No such file or directory"
    assert raised.value.message == text


def test_ipc_and_uts_parameters_are_those_of_the_pod() -> None:
    pod = ["kernel.shmmax", "kernel.shm_rmid_forced", "kernel.msgmnb", "kernel.sem"]
    pod += ["fs.mqueue.msg_max", "fs/mqueue/queues_max", "kernel.hostname", "kernel.domainname"]
    root = ["net.core.somaxconn", "kernel.panic", "fs.file-max", "vm.swappiness"]
    values = dict.fromkeys([*pod, *root], "1")
    assert list(split(values).pod) == pod
    assert list(split(values).root) == root

"""Which sandbox `kuasar-debug` talks to, and what it says when that fails."""

from __future__ import annotations

from pathlib import Path
from subprocess import CompletedProcess

import pytest

from kuasar_agent.ttrpc import listen
from kuasar_debug.address import Target
from kuasar_host.errors import DebugError
from tests.support.command_line import run_kuasar_debug


@pytest.mark.parametrize(
    ("given", "console"),
    [
        ("vsock://3", "vsock://3:1025"),
        ("vsock://3:1024", "vsock://3:1025"),
        ("ttrpc+vsock://3:1024", "vsock://3:1025"),
        ("hvsock:///d/task.vsock", "hvsock:///d/task.vsock:1025"),
        ("hvsock:///d/task.vsock:1024", "hvsock:///d/task.vsock:1025"),
        ("unix:///d", "unix:///d/1025"),
        ("unix:///d/", "unix:///d/1025"),
        ("unix:///d/1024", "unix:///d/1025"),
    ],
)
def test_the_port_of_an_address_is_replaced(given: str, console: str) -> None:
    assert Target(None, given).address(1025) == console


def test_a_directory_is_that_of_a_hybrid_socket(tmp_path: Path) -> None:
    target = Target(tmp_path, None)
    assert target.address(1024) == f"hvsock://{tmp_path}/task.vsock:1024"
    assert Target(None, target.address(1024)).directory == tmp_path


@pytest.mark.parametrize(
    "given", ["", "3:1024", "tcp://h:1", "vsock://x:1024", "vsock://", "unix:"]
)
def test_an_address_that_is_none_is_one_clear_line(given: str) -> None:
    with pytest.raises(DebugError, match="is not an address: expected vsock://CID"):
        Target(None, given)


def one_line(done: CompletedProcess[str]) -> str:
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_neither_directory_nor_address_is_one_clear_line() -> None:
    assert one_line(run_kuasar_debug("ps")) == "Error: give either --dir or --address\n"


@pytest.mark.parametrize("command", [("shell",), ("exec", "true"), ("ps",), ("events",)])
def test_a_sandbox_that_is_not_there_is_one_clear_line(
    command: tuple[str, ...], tmp_path: Path
) -> None:
    name, *rest = command
    assert "there is no such socket" in one_line(
        run_kuasar_debug(name, "--dir", str(tmp_path), *rest)
    )


def test_a_guest_that_is_gone_is_one_clear_line(tmp_path: Path) -> None:
    # The kernel leaves the socket behind.
    listen(f"unix://{tmp_path}/task.vsock").close()
    assert "the guest is gone" in one_line(run_kuasar_debug("ps", "--dir", str(tmp_path)))
    assert "the guest is gone" in one_line(run_kuasar_debug("exec", "--dir", str(tmp_path), "true"))

"""Which sandbox `kuasar-debug` talks to, and what it says when that fails."""

from __future__ import annotations

from pathlib import Path
from subprocess import CompletedProcess

import pytest

from kuasar_agent.ttrpc import listen
from kuasar_host import sandboxes
from kuasar_host.address import GuestAddress
from kuasar_host.errors import HostError
from tests.support.command_line import kuasar_debug


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
    assert GuestAddress(given).port(1025) == console


def test_a_directory_is_that_of_a_hybrid_socket(tmp_path: Path) -> None:
    guest = GuestAddress.of_directory(tmp_path)
    assert guest.port(1024) == f"hvsock://{tmp_path}/task.vsock:1024"
    assert guest.directory == tmp_path


@pytest.mark.parametrize(
    "given", ["", "3:1024", "tcp://h:1", "vsock://x:1024", "vsock://", "unix:"]
)
def test_an_address_that_is_none_is_one_clear_line(given: str) -> None:
    with pytest.raises(HostError, match="is not an address: expected vsock://CID"):
        GuestAddress(given)


def one_line(done: CompletedProcess[str]) -> str:
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    return done.stderr


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Directory with the sandboxes of a host."""
    for name in ("a1b2c3", "a1b2d4", "a1b2", "f0e1"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv(sandboxes.ROOT_VARIABLE, str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(("given", "id"), [("f", "f0e1"), ("a1b2c3", "a1b2c3"), ("a1b2", "a1b2")])
def test_a_sandbox_is_found_by_its_id_or_a_unique_prefix(root: Path, given: str, id: str) -> None:
    assert sandboxes.find(given) == root / id


def test_a_sandbox_is_found_by_its_path(root: Path) -> None:
    assert sandboxes.find(f"{root}/f0e1") == root / "f0e1"


def test_a_sandbox_that_is_unknown_or_ambiguous_is_one_clear_line(root: Path) -> None:
    assert one_line(kuasar_debug("ps", "b")) == f"Error: no sandbox 'b' in {root}\n"
    assert one_line(kuasar_debug("ps", "a1b2c")).endswith("there is no such socket\n")
    assert (
        one_line(kuasar_debug("logs", "a1")) == "Error: 'a1' is ambiguous: a1b2, a1b2c3, a1b2d4\n"
    )
    assert one_line(kuasar_debug("exec", "../f", "true")) == "Error: ../f: no such directory\n"


def test_the_console_of_kuasars_sandbox_is_found(
    root: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    consoles = tmp_path_factory.mktemp("tmp")
    monkeypatch.setattr(sandboxes, "_CONSOLES", consoles)
    assert sandboxes.console_log(root / "f0e1") == root / "f0e1/console.log"
    (consoles / "f0e1-task.log").touch()
    assert sandboxes.console_log(root / "f0e1") == consoles / "f0e1-task.log"
    (root / "f0e1/console.log").touch()
    assert sandboxes.console_log(root / "f0e1") == root / "f0e1/console.log"


def test_a_sandbox_must_be_named_in_one_way() -> None:
    assert one_line(kuasar_debug("ps")) == "Error: name a sandbox: its id, or --dir or --address\n"
    both = kuasar_debug("ps", "--dir", "/", "--address", "vsock://3")
    assert one_line(both) == "Error: give either --dir or --address\n"
    assert one_line(kuasar_debug("dump", "--dir", "/", "x")) == "Error: unexpected argument 'x'\n"


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("run", "--memroy", "1024", "--", "id"), "--memroy"),
        (("run", "--address", "vsock://3", "--", "id"), "--address"),
        (("run", "-it", "--", "sh"), "-i"),
        (("exec", "--cwd", "/", "--", "ls"), "--cwd"),
        (("exec", "/", "--timeout", "5", "ls"), "options stand before SANDBOX: --timeout"),
        (("exec", "/"), "name a command"),
        (("run", "--rootfs", "/nonexistent", "--", "id"), "'/nonexistent' does not exist"),
    ],
)
def test_a_mistaken_option_is_refused_before_anything_runs(
    args: tuple[str, ...], said: str
) -> None:
    done = kuasar_debug(*args)
    assert done.returncode in (1, 2)
    assert said in done.stderr
    assert "booting" not in done.stderr


@pytest.mark.parametrize("command", [("shell",), ("exec", "true"), ("ps",), ("events",)])
def test_a_sandbox_that_is_not_there_is_one_clear_line(
    command: tuple[str, ...], tmp_path: Path
) -> None:
    name, *rest = command
    assert "there is no such socket" in one_line(kuasar_debug(name, "--dir", str(tmp_path), *rest))


def test_a_guest_that_is_gone_is_one_clear_line(tmp_path: Path) -> None:
    # The kernel leaves the socket behind.
    listen(f"unix://{tmp_path}/task.vsock").close()
    assert "the guest is gone" in one_line(kuasar_debug("ps", "--dir", str(tmp_path)))
    assert "the guest is gone" in one_line(kuasar_debug("exec", "--dir", str(tmp_path), "true"))

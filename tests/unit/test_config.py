"""The kernel command line."""

from __future__ import annotations

import pytest

from kuasar_agent.boot.config import TaskConfig, parse_cmdline, split_parameters

CLOUD_HYPERVISOR = (
    "console=hvc0 root=/dev/pmem0p1 rootflags=data=ordered,errors=remount-ro ro rootfstype=ext4 "
    "task.sharefs_type=virtiofs  task.log_level=debug task.enable_tracing=true\n"
)
QEMU = (
    "task.log_level=debug task.sharefs_type=9p tsc=reliable noreplace-smp= reboot=k console=hvc0 "
    "console=hvc1 cryptomgr.notests= net.ifnames=0 pci=lastbus=0"
)
STRATOVIRT = (
    "console=hvc0 panic=1 pcie_ports=native task.log_level=debug task.sharefs_type=virtiofs "
    "root=/dev/vda ro rootfstype=ext4 task.debug"
)


@pytest.mark.parametrize(
    ("line", "config"),
    [
        ("", TaskConfig()),
        ("quiet rdinit=/init\n", TaskConfig()),
        (
            CLOUD_HYPERVISOR,
            TaskConfig(sharefs_type="virtiofs", log_level="debug", enable_tracing=True),
        ),
        (QEMU, TaskConfig(log_level="debug")),
        (STRATOVIRT, TaskConfig(sharefs_type="virtiofs", log_level="debug", debug=True)),
        ("task.debug_shell=/bin/sh", TaskConfig(debug_shell="/bin/sh")),
        ("task.debug_shell=/opt/a=b", TaskConfig(debug_shell="/opt/a=b")),
        ('task.debug_shell="/opt/my shell"', TaskConfig(debug_shell="/opt/my shell")),
        ('"task.debug_shell=/opt/my shell"', TaskConfig(debug_shell="/opt/my shell")),
        ("task.cgroup=v1", TaskConfig(cgroup="v1")),
        ("task.runtime=runc", TaskConfig(runtime="runc")),
        ("task.runtime=runc task.runtime=", TaskConfig()),
        ("task.events=all", TaskConfig(events="all")),
        ("task.vsock_peers=any", TaskConfig(vsock_peers="any")),
        ("task.log_level=WARN", TaskConfig(log_level="warn")),
        ("task.log_level=debug task.log_level=error", TaskConfig(log_level="error")),
        ("task.debug task.debug=false", TaskConfig()),
        ("task.log_format=JSON", TaskConfig(log_format="json")),
        ("task.trace_endpoint=vsock://2:99", TaskConfig(trace_endpoint="vsock://2:99")),
        ("task.trace_endpoint=http://h:1/p", TaskConfig(trace_endpoint="http://h:1/p")),
        ("task.new_key=1 task. task debug agent.debug_console", TaskConfig()),
    ],
)
def test_parameters_become_settings(line: str, config: TaskConfig) -> None:
    assert parse_cmdline(line) == (config, [])


@pytest.mark.parametrize("form", ["", "=true", "=1", "=yes", "=TRUE"])
@pytest.mark.parametrize("key", ["debug", "enable_tracing"])
def test_a_switch_is_turned_on(key: str, form: str) -> None:
    config, warnings = parse_cmdline(f"task.{key}{form}")
    assert getattr(config, key) is True
    assert not warnings


@pytest.mark.parametrize("form", ["=false", "=0", "=no", "=False"])
def test_a_switch_is_turned_off(form: str) -> None:
    assert parse_cmdline(f"task.debug task.debug{form}")[0].debug is False


@pytest.mark.parametrize(
    "parameter",
    [
        "task.sharefs_type=nfs",
        "task.sharefs_type",
        "task.log_level=loud",
        "task.log_level=",
        "task.debug=maybe",
        "task.debug=",
        "task.debug_shell=bash",
        "task.debug_shell",
        "task.cgroup=v3",
        "task.runtime=runsc",
        "task.events=none",
        "task.vsock_peers=3",
        "task.log_format=xml",
        "task.trace_endpoint=https://h:1",
        "task.trace_endpoint",
    ],
)
def test_a_bad_value_warns_and_changes_nothing(parameter: str) -> None:
    config, (warning,) = parse_cmdline(parameter)
    assert config == TaskConfig()
    assert warning.startswith(f"kernel parameter {parameter!r} ignored: ")


def test_a_bad_value_does_not_displace_a_good_one() -> None:
    config, warnings = parse_cmdline("task.log_level=debug task.log_level=loud")
    assert config.log_level == "debug"
    assert len(warnings) == 1


@pytest.mark.parametrize(
    ("text", "parameters"),
    [
        ("a b=c d=e=f g=", [("a", None), ("b", "c"), ("d", "e=f"), ("g", "")]),
        (" a\t\tb\n", [("a", None), ("b", None)]),
        ('x="a b" y', [("x", "a b"), ("y", None)]),
        ('"x=a b" y', [("x", "a b"), ("y", None)]),
        ('x=a"b c"', [("x", 'a"b c"')]),
        ('x="open a b', [("x", "open a b")]),
        ('dyndbg="file a.c +p; file b.c +p"', [("dyndbg", "file a.c +p; file b.c +p")]),
        ('""', [("", None)]),
    ],
)
def test_quotes_are_read_as_the_kernel_reads_them(
    text: str, parameters: list[tuple[str, str | None]]
) -> None:
    assert list(split_parameters(text)) == parameters

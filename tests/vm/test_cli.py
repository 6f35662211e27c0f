"""kuasar-debug as people use it."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.support.kuasar_debug import BOOT, kuasar_debug


def test_run_prints_both_outputs_and_exits_with_the_status_of_the_container() -> None:
    script = "cat; echo err >&2; exit 7"
    done = kuasar_debug("run", *BOOT, "--", "sh", "-c", script, stdin=b"from the host\n")
    assert (done.returncode, done.stdout) == (7, b"from the host\n"), done.stderr
    assert done.stderr.count(b"err\n") == 1
    for word in (b"kernel", b"agent", b"accelerator", b"boot", b"exit status  7"):
        assert word in done.stderr


def test_boot_detached_then_stop_leaves_nothing(tmp_path: Path) -> None:
    directory = tmp_path / "vm"
    booted = kuasar_debug("boot", "--dir", str(directory), "--detach", *BOOT)
    assert booted.returncode == 0, booted.stderr
    assert booted.stdout.startswith(b"ready after ")
    assert f"kuasar-debug stop --dir {directory}\n".encode() in booted.stdout
    second = kuasar_debug("boot", "--dir", str(directory), "--detach", *BOOT)
    assert second.returncode == 1
    assert b"a microVM runs there already" in second.stderr
    stopped = kuasar_debug("stop", "--dir", str(directory))
    assert stopped.returncode == 0, stopped.stderr
    running = subprocess.run(["pgrep", "-f", str(directory)], capture_output=True, text=True)
    assert running.stdout == ""
    assert kuasar_debug("stop", "--dir", str(directory)).returncode == 1


def test_a_missing_kernel_is_one_clear_line(tmp_path: Path) -> None:
    done = kuasar_debug("boot", "--dir", str(tmp_path), "--kernel", str(tmp_path / "none"))
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert b"none does not exist: `make image` builds the guest's files" in line

"""Commands of click, run within the test's process: an interpreter of their own takes 0.3 s."""

from __future__ import annotations

from subprocess import CompletedProcess

import gevent
from click.testing import CliRunner

from kuasar_debug.cli import main
from tests.support.timeouts import IN_PROCESS


def kuasar_debug(*args: str) -> CompletedProcess[str]:
    """Run kuasar-debug to its end; a server in this process may answer it."""
    with gevent.Timeout(IN_PROCESS):
        done = CliRunner().invoke(main, args, prog_name="kuasar-debug")
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return CompletedProcess(args, done.exit_code, done.stdout, done.stderr)

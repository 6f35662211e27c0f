"""The command kuasar-debug as a process, and its options that boot the image under test."""

from __future__ import annotations

import subprocess
import sys

from tests.support.guest import IMAGE
from tests.support.timeouts import GUEST

BOOT = ["--kernel", str(IMAGE / "vmlinux"), "--initrd", str(IMAGE / "kuasar.initrd")]


def kuasar_debug(*args: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run kuasar-debug to its end."""
    command = [sys.executable, "-m", "kuasar_debug", *args]
    return subprocess.run(command, input=stdin, capture_output=True, timeout=GUEST)

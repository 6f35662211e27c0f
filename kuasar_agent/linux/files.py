"""Reading and writing the kernel's small text files (procfs, sysfs, cgroups)."""

from __future__ import annotations

import os


def read_text(path: str) -> str:
    """The whole file; bytes that are not UTF-8 come back as surrogates. OSError."""
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


def write_text(path: str, text: str) -> None:
    """Write an existing file in one write(2), which is one request to the kernel. OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, os.fsencode(text))
    except OSError as error:  # write(2)'s error has no file name of its own
        raise OSError(error.errno, error.strerror, path) from None
    finally:
        os.close(fd)

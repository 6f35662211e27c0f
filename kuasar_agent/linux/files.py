"""Reading and writing the kernel's small text files (procfs, sysfs, cgroups)."""

from __future__ import annotations

import os


def read_text(path: str) -> str:
    """Return a file's text, with bytes that are not UTF-8 as surrogates. Raises OSError."""
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


def write_text(path: str, text: str) -> None:
    """Write to an existing file in one write(2), which is one request to the kernel.

    Raises:
        OSError: the error has the file's name.
    """
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, os.fsencode(text))
    except OSError as error:  # os.write adds no file name
        raise OSError(error.errno, error.strerror, path) from None
    finally:
        os.close(fd)

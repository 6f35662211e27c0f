"""Unix sockets at paths that are longer than an address can hold (108 bytes, unix(7))."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

_MAX_PATH = 107


@contextlib.contextmanager
def short_path(path: Path) -> Iterator[str]:
    """A name for `path` that fits into a socket address, valid inside the block.

    Raises OSError if the directory is missing or the file's own name is too long.
    """
    name = os.fspath(path)
    if len(os.fsencode(name)) <= _MAX_PATH:
        yield name
        return
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


def listen(path: Path, backlog: int = 128) -> socket.socket:
    """A listening stream socket at `path`; a socket that is there already is replaced.

    Raises OSError, FileExistsError when something else is in the way.
    """
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise FileExistsError(f"{path} is not a socket")
        path.unlink()
    sock = socket.socket(socket.AF_UNIX)
    try:
        with short_path(path) as name:
            sock.bind(name)
        sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return sock

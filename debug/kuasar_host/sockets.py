"""Unix sockets, also at paths longer than the 108 bytes of a socket address (unix(7))."""

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
    """Give a name for `path` that fits into a socket address, valid inside the block.

    Raises:
        OSError: the directory is missing.
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
    """Return a listening stream socket at `path`; an old socket there is replaced.

    Raises:
        FileExistsError: a file of another kind is there.
        OSError: the socket cannot be made.
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

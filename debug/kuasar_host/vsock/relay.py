"""`python -m kuasar_host.vsock.relay`: hybrid vsock in front of the host kernel's AF_VSOCK.

For microVMs whose vsock is the kernel's vhost-vsock. Only the host opens connections here; a
guest's connection to the host arrives at the program that listens on AF_VSOCK.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import socket as stdlib_socket
import sys
from collections.abc import Callable

import gevent
from gevent.server import StreamServer
from gevent.socket import SHUT_RD, SHUT_WR, SOCK_STREAM, socket

from kuasar_host.vsock.handshake import MAX_LINE, parse

_CHUNK = 65536
_CONNECT_SECONDS = 5.0

Dial = Callable[[int], tuple[socket, int]]
"""Connects to a port of the guest and returns the socket and the host's port, or raises OSError."""


def relay(client: socket, dial: Dial) -> None:
    """Serve one client and close it; a port that refuses closes it without an answer."""
    with client, contextlib.suppress(OSError):
        port = parse(_read_line(client))
        if port is None:
            return
        guest, host_port = dial(port)
        with guest:
            client.sendall(b"OK %d\n" % host_port)
            back = gevent.spawn(_copy, guest, client)
            _copy(client, guest)
            back.join()


def _read_line(client: socket) -> bytes:
    """Return the line without its newline; the bytes after it stay in the socket."""
    line = b""
    with contextlib.suppress(OSError):
        while len(line) < MAX_LINE and (byte := client.recv(1)):
            if byte == b"\n":
                return line
            line += byte
    return b""


def _copy(source: socket, target: socket) -> None:
    """Copy to the end of the input and pass that on; a closed target shuts the source down."""
    try:
        while data := source.recv(_CHUNK):
            target.sendall(data)
    except OSError:
        with contextlib.suppress(OSError):
            source.shutdown(SHUT_RD)
    with contextlib.suppress(OSError):
        target.shutdown(SHUT_WR)


def vsock_dialer(cid: int) -> Dial:
    """Return a function that connects to the ports of the guest with this CID."""

    def dial(port: int) -> tuple[socket, int]:
        guest = socket(stdlib_socket.AF_VSOCK, SOCK_STREAM)
        try:
            guest.settimeout(_CONNECT_SECONDS)
            guest.connect((cid, port))
            guest.settimeout(None)
        except BaseException:
            guest.close()
            raise
        return guest, guest.getsockname()[1]

    return dial


def main() -> None:
    """Relay between a listening unix socket and a guest."""
    parser = argparse.ArgumentParser(prog="kuasar_host.vsock.relay", description=__doc__)
    parser.add_argument("--uds-fd", type=int, required=True, help="listening unix socket")
    parser.add_argument("--cid", type=int, required=True, help="the guest's CID")
    arguments = parser.parse_args()
    dial = vsock_dialer(arguments.cid)
    listener = socket(fileno=arguments.uds_fd)
    gevent.signal_handler(signal.SIGTERM, sys.exit, 0)
    StreamServer(listener, lambda client, _address: relay(client, dial)).serve_forever()


if __name__ == "__main__":
    main()

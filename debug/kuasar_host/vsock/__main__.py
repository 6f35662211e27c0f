"""`python -m kuasar_host.vsock`: the vhost-user-vsock back end as a process of its own."""

from __future__ import annotations

import argparse
import contextlib
import resource
import signal
import socket
import sys
from pathlib import Path

from kuasar_host.sockets import listen
from kuasar_host.vsock import handshake, vhost_user
from kuasar_host.vsock.device import VsockDevice
from kuasar_host.vsock.listener import Listener
from kuasar_host.vsock.loop import Loop


def main() -> None:
    """Serve one device until SIGTERM or SIGINT."""
    arguments = _parse()
    # Every connection needs a descriptor: use the highest limit that the system allows.
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with contextlib.ExitStack() as cleanup:
        front_ends = _listener(cleanup, arguments.vhost, arguments.vhost_fd)
        clients = _listener(cleanup, arguments.uds, arguments.uds_fd)
        loop = Loop()
        device = VsockDevice(loop, arguments.cid, arguments.uds)
        vhost_user.serve(loop, Listener(loop, front_ends), device)
        handshake.serve(loop, Listener(loop, clients), device.connect)
        with contextlib.suppress(KeyboardInterrupt):
            loop.run(device.step)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="kuasar_host.vsock", description=__doc__)
    parser.add_argument("--vhost", type=Path, required=True, help="socket for QEMU")
    parser.add_argument("--uds", type=Path, required=True, help="socket for clients")
    parser.add_argument("--cid", type=int, default=3, help="the guest's CID")
    parser.add_argument("--vhost-fd", type=int, help="descriptor that listens at --vhost already")
    parser.add_argument("--uds-fd", type=int, help="descriptor that listens at --uds already")
    return parser.parse_args()


def _listener(cleanup: contextlib.ExitStack, path: Path, fd: int | None) -> socket.socket:
    if fd is not None:
        return cleanup.enter_context(socket.socket(fileno=fd))
    cleanup.callback(path.unlink, missing_ok=True)
    return cleanup.enter_context(listen(path))


if __name__ == "__main__":
    main()

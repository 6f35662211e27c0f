"""One shell on a pseudo-terminal for one connection, from its start to its last byte of output."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import NamedTuple

import gevent
import gevent.event
from gevent.socket import SHUT_WR, socket

from kuasar_agent.debug_server.terminal import Terminal
from kuasar_agent.log import get_logger
from kuasar_agent.reaper import Child, Reaper

log = get_logger(__name__)

ROWS, COLS, TERM = 24, 80, "xterm"
"""Terminal of a client that does not describe its own."""

NOT_STARTED = 126
"""Status of a shell that could not be started."""

_CHUNK = 64 * 1024
# Seconds between two checks that a client is still there.
_PROBE = 1.0
# Seconds for the kernel to hand written bytes to the line discipline.
_HANDED_OVER = 0.05
# Seconds for which unread input is drained before close().
_DRAIN = 1.0
# After fewer bytes than _SHORT the output gets _GATHER seconds to collect more: a program that
# writes a few bytes at a time would otherwise cost a packet for each write.
_SHORT, _GATHER = 1024, 0.001
_TERMINFO = ("/etc/terminfo", "/lib/terminfo", "/usr/share/terminfo")


class Screen(NamedTuple):
    """The terminal that a client has."""

    rows: int = ROWS
    cols: int = COLS
    term: str = TERM
    script: bool = False
    """A program is at the other end: no echo, no prompt, every byte is data."""


def run_shell(
    peer: socket, typed: bytes, terminal: Terminal, reaper: Reaper, shell: str, screen: Screen
) -> int:
    """Run a shell until it ends or the peer is gone, and return its exit status.

    No process of the shell's session is left at the return, and the output has been sent.

    Raises:
        OSError: the peer is gone before the shell was started.

    Blocks: the greenlet.
    """
    try:
        if screen.script:
            terminal.pass_all_bytes()
        try:
            child = terminal.execute(reaper, shell, _environment(screen), script=screen.script)
        except OSError as error:
            refuse(peer, "no process", error)
            return NOT_STARTED
        _relay(peer, typed, terminal, child)
        return child.exit.status if child.exit else NOT_STARTED
    finally:
        terminal.kill_all()
        terminal.close()
        # The client reads the end of the output before it reads the status.
        end_sending(peer)


def refuse(peer: socket, reason: str, error: OSError) -> None:
    """Tell the peer and the log why there is no shell.

    Raises:
        OSError: the peer is gone.
    """
    log.warning("debug shell refused", reason=reason, error=error)
    peer.sendall(f"kuasar-agent: {reason}: {error.strerror}\r\n".encode())


def hung_up(peer: socket) -> bool:
    """Return whether the peer closed both directions; after one of them it may still read."""
    try:
        # Sends nothing. Unlike poll(2) it tells the two apart on AF_VSOCK as well.
        peer.send(b"")
    except OSError:
        return True
    return False


def end_sending(peer: socket) -> None:
    """Send the end of file; without effect on a connection that is gone."""
    try:
        peer.shutdown(SHUT_WR)
    except OSError:
        pass


def close_drained(peer: socket) -> None:
    """Close a connection after its unread input, which would look like a reset to the peer.

    Blocks: the greenlet, for one second at most.
    """
    end_sending(peer)
    deadline = time.monotonic() + _DRAIN
    try:
        while (left := deadline - time.monotonic()) > 0:
            peer.settimeout(left)
            if not peer.recv(_CHUNK):
                break
            gevent.sleep(0)
    except OSError:
        pass
    peer.close()


def known_term(name: str) -> str:
    """Return the terminal type for `name` that the guest has a description of.

    Line editors take a type without one for a terminal without cursor movement. `tmux-256color`
    becomes `tmux` where only that is described, and an unknown type becomes `xterm`.
    """
    for candidate in (name, name.partition("-")[0]):
        if (
            candidate
            and candidate == Path(candidate).name
            and any(Path(root, candidate[0], candidate).exists() for root in _TERMINFO)
        ):
            return candidate
    return TERM


def _environment(screen: Screen) -> dict[str, str]:
    term = "dumb" if screen.script else known_term(screen.term)
    # No history file: the root may be read-only, and debugging should leave no trace in it.
    return {"HOME": "/", **os.environ, "TERM": term, "HISTFILE": ""}


def _relay(peer: socket, typed: bytes, terminal: Terminal, shell: Child) -> None:
    """Copy both ways until the shell has ended and its output is sent, or the peer is gone."""
    over = gevent.event.Event()
    typing = gevent.spawn(_type, peer, typed, terminal)
    showing = gevent.spawn(_show, terminal, peer)
    watching = gevent.spawn(_watch, peer, typing)
    waiting = gevent.spawn(shell.wait)
    for task in (showing, watching, waiting):
        task.rawlink(lambda _: over.set())
    try:
        over.wait()
        typing.kill()
        # Processes that the shell left behind would hold the terminal open.
        terminal.kill_all()
        if not watching.dead:
            showing.join()
    finally:
        gevent.killall([typing, showing, watching, waiting])


def _type(peer: socket, typed: bytes, terminal: Terminal) -> None:
    """Write the peer's input to the terminal, and its end as an end of file."""
    try:
        terminal.write(typed)
        while data := peer.recv(_CHUNK):
            terminal.write(data)
            # recv() yields only when it has to wait.
            gevent.sleep(0)
        # The kernel hands bytes to the line discipline in a worker; those that it gets after the
        # change of modes would have a meaning, a Ctrl-D that of an end of file.
        gevent.sleep(_HANDED_OVER)
        while not hung_up(peer):
            # Repeated: an end that arrives while a shell changes the terminal's modes is lost.
            terminal.end_input()
            gevent.sleep(_PROBE)
    except OSError:
        pass


def _watch(peer: socket, typing: gevent.Greenlet[..., None]) -> None:
    """Return when the peer is gone, even while no program reads its input."""
    while not hung_up(peer):
        if typing.dead:
            gevent.sleep(_PROBE)
        else:
            typing.join(_PROBE)


def _show(terminal: Terminal, peer: socket) -> None:
    """Send the terminal's output until its end or until the peer is gone."""
    try:
        while True:
            data = terminal.read()
            peer.sendall(data)
            gevent.sleep(_GATHER if len(data) < _SHORT else 0)
    except (EOFError, OSError):
        pass

"""The debug console: a shell on a terminal for everybody who connects to port 1025.

The bytes travel as they are. The first line of a connection may choose another mode; with anything
else, or nothing within 300 ms, it is a plain terminal and what came is typed into it. A line that
begins like those below is awaited for two seconds.

    KSR_MODE exec                        kuasar-ctl: no echo, no prompt, lines of any length
    KSR_MODE session <rows> <cols> <term>  kuasar-debug: answered with `session <token>`. The
                                         connection then takes lines `size <rows> <cols>` and says
                                         `exit <status>` when the shell has ended
    KSR_MODE attach <token>              the terminal of that session
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import gevent
import gevent.event
from gevent.socket import SHUT_WR, socket

from kuasar_agent.debug_server.terminal import Terminal
from kuasar_agent.log import get_logger
from kuasar_agent.reaper import Child, Reaper

log = get_logger(__name__)

PORT = 1025

ROWS, COLS, TERM = 24, 80, "xterm"
"""The terminal of a client that does not say what it has."""

# Kuasar's own agent waits 0.1 s, which a client on a busy machine misses.
_SNIFF_SECONDS, _SNIFF_CHUNK, _SNIFF_LIMIT = 0.3, 128, 1024
# A header that has begun may take longer: on a busy machine its pieces come late.
_HEADER, _HEADER_SECONDS = b"KSR_MODE ", 2.0
_CHUNK = 64 * 1024
_LINE_LIMIT = 256
# How often it is checked whether a client is still there, and how long one is seen off (seconds).
_PROBE, _SEE_OFF = 1.0, 1.0
# After fewer bytes than these, output is left to gather for a moment (seconds).
_SHORT, _GATHER = 1024, 0.001
_NOT_STARTED = 126
# accept(2) fails while descriptors are short; the listener waits and tries again (seconds).
_BACKOFF_FIRST, _BACKOFF_LAST = 0.01, 1.0

_EXEC = b"KSR_MODE exec"
_SESSION = re.compile(rb"KSR_MODE session ([0-9]{1,5}) ([0-9]{1,5}) ([\x21-\x7e]{1,64})")
_ATTACH = re.compile(rb"KSR_MODE attach ([0-9a-f]{16})")
_SIZE = re.compile(rb"size ([0-9]{1,5}) ([0-9]{1,5})")


class Screen(NamedTuple):
    """What a client's terminal is like."""

    rows: int = ROWS
    cols: int = COLS
    term: str = TERM
    quiet: bool = False
    """For a program at the other end: no echo, no prompt."""


class _Session:
    """A terminal with a second connection, which sets its size and learns how it ended."""

    def __init__(self, screen: Screen) -> None:
        self.screen = screen
        self.terminal: Terminal | None = None
        self.status: int | None = None
        self.over = gevent.event.Event()
        """Set when the shell has ended, or nobody asks for it any more."""

    def end(self, status: int) -> None:
        self.status = status
        self.over.set()

    def resize(self, rows: int, cols: int) -> None:
        self.screen = self.screen._replace(rows=rows, cols=cols)
        if self.terminal is not None and self.terminal.fd >= 0:
            self.terminal.setwinsize(rows, cols)


class DebugShellServer:
    """Gives every connection a shell of its own."""

    def __init__(self, reaper: Reaper, shell: str, admit: Callable[[Any], bool]) -> None:
        """`admit` decides by its address whether a peer may have a shell."""
        self._reaper = reaper
        self._shell = shell
        self._admit = admit
        self._sessions: dict[bytes, _Session] = {}

    def start(self, listener: socket) -> None:
        """Accept connections in a greenlet, for ever."""
        gevent.spawn(self._accept, listener)

    def _accept(self, listener: socket) -> None:
        pause = _BACKOFF_FIRST
        while True:
            try:
                peer, address = listener.accept()
            except OSError:
                gevent.sleep(pause)
                pause = min(pause * 2, _BACKOFF_LAST)
                continue
            pause = _BACKOFF_FIRST
            if self._admit(address):
                gevent.spawn(self._serve, peer)
            else:
                log.warning("debug console refused", peer=address)
                peer.close()

    def _serve(self, peer: socket) -> None:
        try:
            self._choose_mode(peer, _sniff(peer))
        except OSError as error:
            log.debug("debug console ended", error=error)
        except Exception:
            log.exception("debug console failed")
        finally:
            _see_off(peer)

    def _choose_mode(self, peer: socket, first: bytes) -> None:
        line, _, rest = first.partition(b"\n")
        line = line.removesuffix(b"\r")
        if line == _EXEC:
            self._shell_for(peer, rest, Screen(term="dumb", quiet=True))
        elif match := _SESSION.fullmatch(line):
            rows, cols, term = match.groups()
            self._control(peer, rest, _Session(Screen(_size(rows), _size(cols), term.decode())))
        elif (match := _ATTACH.fullmatch(line)) and (
            session := self._sessions.pop(match.group(1), None)
        ):
            self._shell_for(peer, rest, session.screen, session)
        elif first or not _hung_up(peer):
            self._shell_for(peer, first, Screen())

    def _shell_for(
        self, peer: socket, typed: bytes, screen: Screen, session: _Session | None = None
    ) -> None:
        """Run a shell until it ends or the peer goes; nothing of it is left afterwards."""
        try:
            terminal = Terminal(screen.rows, screen.cols)
        except OSError as error:
            _refuse(peer, "no terminal", error)
            return
        status = _NOT_STARTED
        try:
            if session is not None:
                session.terminal = terminal
            if screen.quiet:
                terminal.set_quiet()
            try:
                shell = terminal.execute(self._reaper, self._shell, _environment(screen))
            except OSError as error:
                _refuse(peer, "no process", error)
                return
            _relay(peer, typed, terminal, shell)
            status = shell.exit.status if shell.exit else status
        finally:
            terminal.kill_all()
            terminal.close()
            # The end of the output before the status.
            _end_sending(peer)
            if session is not None:
                session.end(status)

    def _control(self, peer: socket, rest: bytes, session: _Session) -> None:
        token = os.urandom(8).hex().encode()
        self._sessions[token] = session
        reader = gevent.spawn(_read_sizes, peer, rest, session)
        try:
            peer.sendall(b"session %s\n" % token)
            reader.rawlink(lambda _: session.over.set())
            session.over.wait()
            if session.status is not None:
                peer.sendall(b"exit %d\n" % session.status)
        finally:
            # Without this connection nobody knows the token of a session that did not begin.
            self._sessions.pop(token, None)
            reader.kill()


def _sniff(peer: socket) -> bytes:
    """What the peer sends first: up to a line's end, a kilobyte, its own end, or 300 ms."""
    data = b""
    begun = time.monotonic()
    while b"\n" not in data and len(data) < _SNIFF_LIMIT:
        header = data != b"" and data.startswith(_HEADER[: len(data)])
        left = begun + (_HEADER_SECONDS if header else _SNIFF_SECONDS) - time.monotonic()
        if left <= 0:
            break
        peer.settimeout(left)
        try:
            chunk = peer.recv(_SNIFF_CHUNK)
        except TimeoutError:
            break
        if not chunk:
            break
        data += chunk
    peer.settimeout(None)
    return data


def _refuse(peer: socket, reason: str, error: OSError) -> None:
    """Tell the peer and the log why it gets no shell. Raises OSError when the peer is gone."""
    log.warning("debug shell refused", reason=reason, error=error)
    peer.sendall(f"kuasar-agent: {reason}: {error.strerror}\r\n".encode())


def _environment(screen: Screen) -> dict[str, str]:
    # The root may be read-only, and a look around should leave no trace: no history is kept.
    env = {"HOME": "/", **os.environ, "TERM": screen.term, "HISTFILE": ""}
    if screen.quiet:
        env.update(PS1="", PS2="")
    return env


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
        # What the shell left running would hold the terminal open.
        terminal.kill_all()
        if not watching.dead:
            showing.join()
    finally:
        gevent.killall([typing, showing, watching, waiting])


def _type(peer: socket, typed: bytes, terminal: Terminal) -> None:
    """Type what the peer sends, and at its end an end of file, unless the peer is gone."""
    try:
        terminal.write(typed)
        while data := peer.recv(_CHUNK):
            terminal.write(data)
            # recv() gives way only when it has to wait.
            gevent.sleep(0)
        while not _hung_up(peer):
            # Again and again: one that comes while a shell changes the terminal's mode is lost.
            terminal.write(terminal.end_of_input())
            gevent.sleep(_PROBE)
    except OSError:
        pass


def _watch(peer: socket, typing: gevent.Greenlet[..., None]) -> None:
    """Return when the peer is gone, even while nobody reads what it sent."""
    while not _hung_up(peer):
        if typing.dead:
            gevent.sleep(_PROBE)
        else:
            typing.join(_PROBE)


def _show(terminal: Terminal, peer: socket) -> None:
    """Send the terminal's output; returns at its end or when the peer is gone."""
    try:
        while True:
            data = terminal.read()
            peer.sendall(data)
            # A program that writes a few bytes at a time would cost a packet for each of them.
            gevent.sleep(_GATHER if len(data) < _SHORT else 0)
    except (EOFError, OSError):
        pass


def _read_sizes(peer: socket, rest: bytes, session: _Session) -> None:
    try:
        while True:
            *lines, rest = rest.split(b"\n")
            for line in lines:
                if match := _SIZE.fullmatch(line):
                    session.resize(_size(match[1]), _size(match[2]))
            if len(rest) > _LINE_LIMIT or not (data := peer.recv(_LINE_LIMIT)):
                return
            rest += data
    except OSError:
        pass


def _size(digits: bytes) -> int:
    # The kernel's struct winsize has 16 bits.
    return min(int(digits), 0xFFFF)


def _hung_up(peer: socket) -> bool:
    """Whether the peer closed both directions; after one of them it may still read."""
    try:
        # Sends nothing. Unlike poll(2) it tells the two apart on AF_VSOCK as well.
        peer.send(b"")
    except OSError:
        return True
    return False


def _end_sending(peer: socket) -> None:
    try:
        peer.shutdown(SHUT_WR)
    except OSError:
        pass


def _see_off(peer: socket) -> None:
    """Close, but not on input that nobody read: that would look like a reset to the peer."""
    _end_sending(peer)
    deadline = time.monotonic() + _SEE_OFF
    try:
        while (left := deadline - time.monotonic()) > 0:
            peer.settimeout(left)
            if not peer.recv(_CHUNK):
                break
            gevent.sleep(0)
    except OSError:
        pass
    peer.close()

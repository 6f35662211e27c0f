"""The server on port 1025: accepts connections and gives each the mode that it asks for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent
from gevent.socket import socket

from kuasar_agent.debug_server.first_line import Attach, Control, Exec, Mode, Plain, read_mode
from kuasar_agent.debug_server.session import Session, Sessions
from kuasar_agent.debug_server.shell import (
    NOT_STARTED,
    Screen,
    close_drained,
    hung_up,
    refuse,
    run_shell,
)
from kuasar_agent.debug_server.terminal import Terminal
from kuasar_agent.log import get_logger
from kuasar_agent.reaper import Reaper
from kuasar_agent.ttrpc.listener import Listener

log = get_logger(__name__)

PORT = 1025


class DebugServer:
    """Gives every connection a shell of its own."""

    def __init__(self, reaper: Reaper, shell: str, admit: Callable[[Any], bool]) -> None:
        """`shell` is the path of a program; `admit` decides by its address whether a peer may
        connect."""
        self._reaper = reaper
        self._shell = shell
        self._admit = admit
        self._sessions = Sessions()

    def start(self, listener: socket) -> None:
        """Accept connections in a greenlet, for as long as the agent lives."""
        gevent.spawn(self._accept, listener)

    def _accept(self, listener: socket) -> None:
        pause = Listener.min_delay
        while True:
            try:
                peer, address = listener.accept()
            except OSError:  # descriptors are short
                gevent.sleep(pause)
                pause = min(pause * 2, Listener.max_delay)
                continue
            pause = Listener.min_delay
            if self._admit(address):
                gevent.spawn(self._serve, peer)
            else:
                log.warning("debug server: connection refused", peer=address)
                peer.close()

    def _serve(self, peer: socket) -> None:
        try:
            self._dispatch(peer, read_mode(peer))
        except OSError as error:
            log.debug("debug session ended", error=error)
        except Exception:
            log.exception("debug session failed")
        finally:
            close_drained(peer)

    def _dispatch(self, peer: socket, mode: Mode) -> None:
        match mode:
            case Exec(typed):
                self._run_shell(peer, typed, Screen(script=True))
            case Control(rows, cols, term, rest):
                self._sessions.control(peer, rest, Session(rows, cols, term))
            case Attach(token, typed, line):
                session = self._sessions.take(token)
                if session is None:
                    self._run_shell(peer, line, Screen())
                else:
                    self._run_session(peer, typed, session)
            case Plain(typed) if typed or not hung_up(peer):
                self._run_shell(peer, typed, Screen())

    def _run_session(self, peer: socket, typed: bytes, session: Session) -> None:
        status = NOT_STARTED
        try:
            screen = Screen(session.rows, session.cols, session.term)
            status = self._run_shell(peer, typed, screen, session)
        finally:
            session.end(status)

    def _run_shell(
        self, peer: socket, typed: bytes, screen: Screen, session: Session | None = None
    ) -> int:
        try:
            terminal = Terminal(screen.rows, screen.cols)
        except OSError as error:
            refuse(peer, "no terminal", error)
            return NOT_STARTED
        if session is not None:
            session.terminal = terminal
        return run_shell(peer, typed, terminal, self._reaper, self._shell, screen)

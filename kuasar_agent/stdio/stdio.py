"""The three standard streams of one process, each with its own transport towards the host.

Without a terminal the process has pipes. With one, the OCI runtime makes it and hands its master
over through `console_socket`; stdout and stdin are connected to it, stderr is not used.
"""

from __future__ import annotations

import os

import gevent

from kuasar_agent.spans import traced
from kuasar_agent.stdio.console_socket import ConsoleSocket
from kuasar_agent.stdio.copiers import Input, Output, TerminalInput
from kuasar_agent.stdio.pacing import Silence
from kuasar_agent.stdio.pipes import grow_pipe
from kuasar_agent.stdio.sink import Sink, Source
from kuasar_agent.stdio.transports import Transports
from kuasar_agent.stdio.urls import StdioUrls

READER_FACTOR = 5
"""The grace for a reader that is there and grants, in graces: containerd grants 64 KiB at a time,
so one that is slow, or whose disk stalls, gives no sign for a while."""

_LONGEST_PAUSE = 0.1
"""Seconds between two looks at what readers have taken."""


class Stdio:
    """The streams of one process; it owns every descriptor that it makes."""

    def __init__(self, drain_grace: float = 0.0) -> None:
        self.child_fds: list[int] = []
        """The descriptors that become 0, 1 and 2 of the process, until `start`."""
        self._drain_grace = drain_grace
        self._console: ConsoleSocket | None = None
        self._sink: Sink | None = None
        self._source: Source | None = None
        self._outputs: list[Output] = []
        self._input: Input | None = None
        self._silence: Silence | None = None

    def descriptors(self) -> list[int]:
        return self.child_fds

    @classmethod
    @traced("stdio")
    def open(cls, urls: StdioUrls, ports: Transports, owner: tuple[int, int] = (0, 0)) -> Stdio:
        """Open pipes and transports for the URLs; the process's pipe ends belong to `owner`.

        Raises: the errors of `Transports.sink` and `source`; nothing stays open then.
        Blocks: the greenlet, while a virtio-serial port is waited for.
        """
        stdio = cls(ports.drain_grace)
        try:
            if urls.terminal:
                stdio._open_terminal(urls, ports)
            else:
                stdio._open_input(urls.stdin, ports, owner)
                for url in (urls.stdout, urls.stderr):
                    stdio._open_output(url, ports, owner, prompt=bool(urls.stdin))
        except BaseException:
            stdio.close()
            raise
        return stdio

    @property
    def console_socket(self) -> str | None:
        """The path for the runtime's `--console-socket`, or None without a terminal."""
        return self._console.socket_path if self._console is not None else None

    @traced("stdio start")
    def start(self) -> None:
        """Close our copies of the process's ends and begin to copy.

        Raises:
            Unknown, DeadlineExceeded: the runtime has sent no terminal.
        Blocks: the greenlet, while the terminal is waited for.
        """
        self._close_child_fds()
        if self._console is not None:
            self._connect_terminal(self._console.wait())
        for stream in self._streams():
            stream.start()

    def resize(self, width: int, height: int) -> None:
        """Set the terminal's size in characters, also before it exists; ignored without one."""
        if self._console is not None:
            self._console.resize(width, height)

    def close_stdin(self) -> None:
        """Give the process the end of its input, after the bytes that the host has sent."""
        if self._input is not None:
            self._input.finish()

    @traced("stdio settle")
    def settle(self) -> bool:
        """Wait until the host has taken the output that is there.

        To be called between the process's end and any word of it to the host: containerd cancels
        its readers as soon as it hears of the end. To be called again before `close`.

        Output that comes later, from a process that outlives this one, is not waited for, nor is
        a reader's arrival to see the end of no output. Returns False once nothing has been taken
        for the grace, counted over all calls; the output stays for a later reader.

        Blocks: the greenlet.
        """
        for output in self._outputs:
            output.mark()
        if self._silence is None:
            self._silence = Silence()
        pause = 0.001
        while waiting := self._waiting(self._silence):
            grace = self._drain_grace
            if any(output.transport.slow_to_tell for output in waiting):
                grace *= READER_FACTOR
            if self._silence.seconds >= grace:
                return False
            copiers = [output.copier for output in waiting if output.copier is not None]
            if all(copier.ready() for copier in copiers):
                gevent.sleep(pause)
            else:
                # The end of the output is an event, all else is asked for.
                gevent.joinall(copiers, timeout=pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
        return True

    def _waiting(self, silence: Silence) -> list[Output]:
        """Return the outputs that are not taken."""
        silence.look(sum(output.progress for output in self._outputs))
        return [output for output in self._outputs if not output.is_taken(silence.seconds)]

    def close(self) -> None:
        """Give every descriptor back; may be called at any time, more than once.

        Output that was not delivered is dropped, except in a channel, which keeps it for a while.
        """
        self._close_child_fds()
        for stream in self._streams():
            stream.close()
        for end in (self._sink, self._source):
            if end is not None:
                end.close()
        self._sink = self._source = None
        if self._console is not None:
            self._console.close()

    def _streams(self) -> list[Output | Input]:
        return [*self._outputs, *([self._input] if self._input else [])]

    def _open_terminal(self, urls: StdioUrls, ports: Transports) -> None:
        self._sink = ports.sink(urls.stdout, prompt=bool(urls.stdin)) if urls.stdout else Sink()
        self._source = ports.source(urls.stdin) if urls.stdin else None
        self._console = ConsoleSocket()
        # The runtime's own; the container does not get them.
        for flags in (os.O_RDONLY, os.O_WRONLY, os.O_WRONLY):
            self.child_fds.append(os.open(os.devnull, flags | os.O_CLOEXEC))

    def _connect_terminal(self, master: int) -> None:
        # Each owns a descriptor: input may end long before output.
        if self._sink is not None:
            self._outputs.append(Output(os.dup(master), self._sink))
        if self._source is not None:
            self._input = TerminalInput(os.dup(master), self._source)
        self._sink = self._source = None

    def _open_input(self, url: str, ports: Transports, owner: tuple[int, int]) -> None:
        if not url:
            self.child_fds.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
            return
        source = ports.source(url)
        theirs, ours = os.pipe()
        grow_pipe(ours)
        self._input = Input(ours, source)
        self.child_fds.append(theirs)
        os.fchown(theirs, *owner)

    def _open_output(
        self, url: str, ports: Transports, owner: tuple[int, int], *, prompt: bool
    ) -> None:
        if not url:
            self.child_fds.append(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC))
            return
        sink = ports.sink(url, prompt=prompt)
        ours, theirs = os.pipe()
        grow_pipe(ours)
        self._outputs.append(Output(ours, sink))
        self.child_fds.append(theirs)
        os.fchown(theirs, *owner)

    def _close_child_fds(self) -> None:
        for fd in self.child_fds:
            os.close(fd)
        self.child_fds = []

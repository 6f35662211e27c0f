"""The transports of a process's streams; each stream has the one that its own URL names.

(empty)                              nowhere
vsock://x:PORT, hvsock://x:PORT      the agent listens, the host connects (`vsock_ports`)
…?streaming_id=ID, …?id=ID           a channel of the Streaming service (`channels`)
/path                                a FIFO, a device or a file (`guest_paths`)
anything else                        a virtio-serial port of that name (`guest_paths`)
"""

from __future__ import annotations

import re

from gevent.socket import socket

from kuasar_agent.boot.config import TaskConfig
from kuasar_agent.devices import Devices
from kuasar_agent.errors import FailedPrecondition, InvalidArgument
from kuasar_agent.stdio import guest_paths
from kuasar_agent.stdio.channels import Channels, ChannelSink, ChannelSource
from kuasar_agent.stdio.sink import Sink, Source
from kuasar_agent.stdio.vsock_ports import Admit, Listen, ListenerSink, ListenerSource

PORT_WAIT = 10.0
"""Seconds for a virtio-serial port that the host has just plugged."""

_VSOCK = re.compile(r"h?vsock://(?!\[)([^?#]*)", re.IGNORECASE)
_PORT = re.compile(r".*:([0-9]{1,10})", re.DOTALL)


class Transports:
    """The means of the guest to open the transport that a URL names."""

    def __init__(
        self,
        listen: Listen,
        admit: Admit,
        devices: Devices,
        channels: Channels | None = None,
        *,
        drain_grace: float = TaskConfig().drain_grace,
        port_wait: float = PORT_WAIT,
    ) -> None:
        self.channels = channels or Channels()
        self.drain_grace = drain_grace
        self._listen = listen
        self._admit = admit
        self._devices = devices
        self._port_wait = port_wait

    def sink(self, url: str, *, prompt: bool = False) -> Sink:
        """Open the far end of an output stream; `prompt` when its process has an input, too.

        Raises:
            InvalidArgument: a URL of an unknown form, a path that cannot be opened.
            FailedPrecondition: a port or a device that is in use.
        Blocks: the greenlet, while a virtio-serial port is waited for.
        """
        if (id := channel_id(url)) is not None:
            return ChannelSink(self.channels, id, prompt=prompt)
        if "://" in url:
            return ListenerSink(self._open(url), self._admit)
        return guest_paths.open_sink(self._path(url))

    def source(self, url: str) -> Source:
        """Open the far end of an input stream. Raises, blocks: as `sink`."""
        if (id := channel_id(url)) is not None:
            return ChannelSource(self.channels, id)
        if "://" in url:
            return ListenerSource(self._open(url), self._admit)
        return guest_paths.open_source(self._path(url))

    def _path(self, url: str) -> str:
        if url.startswith("/"):
            return url
        return guest_paths.find_serial_port(url, self._devices, self._port_wait)

    def _open(self, url: str) -> socket:
        port = vsock_port(url)
        try:
            return self._listen(port)
        except OSError as error:
            raise FailedPrecondition(f"cannot listen for {url}: {error.strerror}") from None


def names_serial_port(url: str) -> bool:
    """Return whether a URL is the name of a virtio-serial port."""
    return bool(url) and "://" not in url and not url.startswith("/")


def channel_id(url: str) -> str | None:
    """Return the stream's id in a URL of the Streaming service, None for any other kind of URL.

    Raises: InvalidArgument when such a URL has no id.
    """
    place, separator, query = url.partition("?")
    if "://" not in place:
        return None
    for parameter in query.split("&"):
        key, _, value = parameter.partition("=")
        if key in ("streaming_id", "id") and value:
            # Not needed before the agent serves, and slow to import.
            from urllib.parse import unquote

            return unquote(value)
    if separator or place.startswith("ttrpc+"):
        # contract: vmm-task
        raise InvalidArgument(f"streaming url invalid, no id: {url!r}")
    return None


def vsock_port(url: str) -> int:
    """Return the port of `vsock://<any>:<port>` or `hvsock://<any>:<port>`.

    Raises: InvalidArgument for any other URL.
    """
    place = _VSOCK.match(url)
    if place is None:
        raise InvalidArgument(f"no transport for stdio {url!r}")
    port = _PORT.fullmatch(place[1])
    if port is None or int(port[1]) >= 0xFFFFFFFF:
        raise InvalidArgument(f"no port in stdio {url!r}")
    return int(port[1])

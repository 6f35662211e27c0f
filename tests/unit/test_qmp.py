"""The QMP client against a scripted monitor."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent.socket import socket

from kuasar_host.qmp import Qmp, QmpError
from kuasar_host.sockets import listen


class Monitor:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.requests: list[dict[str, Any]] = []
        self.answers: list[list[dict[str, Any]]] = []
        self._listener = socket(fileno=listen(path).detach())
        self._server = gevent.spawn(self._serve)

    def _serve(self) -> None:
        peer, _address = self._listener.accept()
        with peer, peer.makefile("rwb") as stream:
            stream.write(b'{"QMP": {"version": {}, "capabilities": []}}\n')
            stream.flush()
            for line in stream:
                request = json.loads(line)
                self.requests.append(request)
                known = request["execute"] == "qmp_capabilities"
                for message in [{"return": {}}] if known else self.answers.pop(0):
                    stream.write(json.dumps(message).encode() + b"\r\n")
                stream.flush()

    def close(self) -> None:
        self._server.kill()
        self._listener.close()


@pytest.fixture
def monitor(tmp_path: Path) -> Iterator[Monitor]:
    served = Monitor(tmp_path / "qmp.sock")
    yield served
    served.close()


def test_a_command_returns_its_value(monitor: Monitor) -> None:
    monitor.answers = [[{"return": {"status": "running"}}]]
    with Qmp(monitor.path) as qmp:
        assert qmp.execute("query-status") == {"status": "running"}


def test_arguments_keep_their_dashes(monitor: Monitor) -> None:
    monitor.answers = [[{"return": {}}]]
    with Qmp(monitor.path) as qmp:
        qmp.execute("blockdev-add", node_name="d0")
    assert monitor.requests[-1]["arguments"] == {"node-name": "d0"}


def test_an_error_carries_qemus_words(monitor: Monitor) -> None:
    monitor.answers = [[{"error": {"class": "GenericError", "desc": "no such device"}}]]
    with Qmp(monitor.path) as qmp, pytest.raises(QmpError, match="no such device"):
        qmp.execute("device_del", id="d0")


def test_events_between_answers_are_kept(monitor: Monitor) -> None:
    monitor.answers = [[{"event": "STOP"}, {"event": "RESET"}, {"return": 1}]]
    with Qmp(monitor.path) as qmp:
        assert qmp.execute("stop") == 1
        assert qmp.wait_event("RESET", 10) == {"event": "RESET"}


def test_an_event_that_does_not_come_times_out(monitor: Monitor) -> None:
    with Qmp(monitor.path) as qmp, pytest.raises(TimeoutError):
        qmp.wait_event("RESET", 0.01)


def test_a_monitor_that_goes_away_is_an_error(monitor: Monitor) -> None:
    with Qmp(monitor.path) as qmp:
        monitor.close()
        with pytest.raises(QmpError):
            qmp.execute("query-status")


def test_nobody_listening_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        Qmp(tmp_path / "none")

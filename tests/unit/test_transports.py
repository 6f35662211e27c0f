"""Which transport a stdio URL names, and how a virtio-serial port is found by its name."""

from __future__ import annotations

from pathlib import Path

import gevent
import pytest

from kuasar_agent.devices import Devices
from kuasar_agent.errors import InvalidArgument, ResourceExhausted, Unknown
from kuasar_agent.stdio.channels import Channels, OutputChannel
from kuasar_agent.stdio.guest_paths import find_serial_port
from kuasar_agent.stdio.transports import channel_id, vsock_port


@pytest.mark.parametrize(
    ("url", "id"),
    [
        ("ttrpc+vsock://3:1024?streaming_id=c1-stdout", "c1-stdout"),
        ("ttrpc+hvsock:///run/sb/task.vsock:1024?streaming_id=c1-stdin", "c1-stdin"),
        ("ttrpc+vsock://3:1024?a=b&id=c1-stderr", "c1-stderr"),
        ("ttrpc+vsock://3:1024?id=id%3Dx+y-stdout", "id=x+y-stdout"),
        ("vsock://3:20000", None),
        ("/run/fifo?id=x", None),
        ("chardev7", None),
    ],
)
def test_a_stream_is_known_by_its_query(url: str, id: str | None) -> None:
    assert channel_id(url) == id


@pytest.mark.parametrize("url", ["ttrpc+vsock://3:1024", "vsock://3:1024?", "x://y?streaming_id="])
def test_a_streaming_url_without_an_id_is_invalid(url: str) -> None:
    with pytest.raises(InvalidArgument, match="streaming url invalid, no id"):
        channel_id(url)


@pytest.mark.parametrize("url", ["vsock://3:20000", "hvsock:///run/sb/task.vsock:20000"])
def test_a_port_is_the_last_part(url: str) -> None:
    assert vsock_port(url) == 20000


def make_port(sysfs: Path, device: str, name: str) -> None:
    """A port as the kernel shows it: in sysfs, with a name that follows later."""
    path = sysfs / "devices" / device
    path.mkdir(parents=True)
    (path / "uevent").write_text(f"DEVNAME={device}\n")
    links = sysfs / "class/virtio-ports"
    links.mkdir(parents=True, exist_ok=True)
    (links / device).symlink_to(path)
    (path / "name").write_text(name)


def test_a_virtio_serial_port_is_found_by_its_trimmed_name(tmp_path: Path) -> None:
    for device, name in (("vport2p1", ""), ("vport2p2", "chardev7\n"), ("vport2p3", "chardev77\n")):
        make_port(tmp_path, device, name)
    (tmp_path / "devices/vport2p1/name").unlink()
    assert find_serial_port("chardev7", Devices(str(tmp_path)), 0) == "/dev/vport2p2"


def test_a_virtio_serial_port_may_appear_late(tmp_path: Path) -> None:
    finding = gevent.spawn(find_serial_port, "chardev7", Devices(str(tmp_path)), 20)
    gevent.sleep(0)
    assert not finding.ready()
    make_port(tmp_path, "vport2p2", "chardev7\n")
    assert finding.get(timeout=20) == "/dev/vport2p2"


def test_a_virtio_serial_port_may_have_its_name_late(tmp_path: Path) -> None:
    make_port(tmp_path, "vport2p2", "")
    finding = gevent.spawn(find_serial_port, "chardev7", Devices(str(tmp_path)), 20)
    gevent.sleep(0)
    assert not finding.ready()
    (tmp_path / "devices/vport2p2/name").write_text("chardev7\n")
    assert finding.get(timeout=20) == "/dev/vport2p2"


def test_without_a_bus_the_port_is_named_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(Unknown, match="failed to get serial dev of name chardev7"):
        find_serial_port("chardev7", Devices(str(tmp_path / "none")), 0)


class Reader:
    """A reader that takes nothing."""

    preempted = False
    grants = False

    def preempt(self) -> None:
        self.preempted = True


def test_small_writes_are_gathered_and_taken_in_order() -> None:
    channel = OutputChannel()
    for n in range(10):
        channel.put(bytes([n]) * 3)
    assert bytes(channel.peek(7)) == b"\0\0\0\1\1\1"
    channel.consume(2)
    assert bytes(channel.peek(4)) == b"\0\1\1\1"
    got = b""
    while not channel.empty:
        piece = channel.peek(5)
        got += piece
        channel.consume(len(piece))
    assert got == b"".join(bytes([n]) * 3 for n in range(10))[2:]


def test_a_new_reader_makes_the_old_one_settle_first() -> None:
    channel, old, new = OutputChannel(), Reader(), Reader()
    channel.attach(old)
    channel.attach(new)
    assert (old.preempted, new.preempted) == (True, False)
    channel.detach(old)
    assert channel.has_reader
    channel.detach(new)
    assert not channel.has_reader


def test_a_channel_without_a_process_goes_with_its_reader() -> None:
    channels, reader = Channels(), Reader()
    channel = channels.output("x-stdout")
    channel.attach(reader)
    channel.detach(reader)
    channels.reader_left("x-stdout", channel)
    assert channels.outputs == {}


def test_output_without_a_reader_is_dropped_after_the_grace() -> None:
    channels = Channels(keep=0.01)
    channel = channels.produce("x-stdout")
    channel.put(b"data")
    channels.release_output("x-stdout", channel)
    assert channels.output("x-stdout") is channel
    gevent.sleep(0.1)
    assert channels.outputs == {}


def test_output_is_kept_while_a_slow_reader_takes_it(capfd: pytest.CaptureFixture[str]) -> None:
    channels, reader = Channels(keep=0.01), Reader()
    channel = channels.produce("x-stdout")
    channel.put(b"data")
    channel.attach(reader)
    channels.release_output("x-stdout", channel)
    gevent.sleep(0.1)
    assert channels.outputs == {"x-stdout": channel}
    channel.detach(reader)
    channels.reader_left("x-stdout", channel)
    gevent.sleep(0.1)
    assert channels.outputs == {}
    assert "output dropped" in capfd.readouterr().err


def test_the_number_of_channels_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kuasar_agent.stdio.channels.MOST_CHANNELS", 2)
    channels = Channels()
    channels.output("a")
    channels.input("b")
    with pytest.raises(ResourceExhausted):
        channels.output("c")
    assert channels.output("a")

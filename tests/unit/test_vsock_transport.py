"""The guest's vsock over the host's vhost-vsock, as far as a host without that device can tell."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from kuasar_host import accel, vsock_transport
from kuasar_host.errors import HostError
from kuasar_host.vsock_transport import Reserved


def test_without_the_device_the_own_back_end_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vsock_transport, "VHOST_DEVICE", str(tmp_path / "none"))
    assert vsock_transport.choose("auto") is None
    assert vsock_transport.choose("user") is None
    with pytest.raises(HostError, match="none is missing or refuses a CID"):
        vsock_transport.choose("kernel")


def test_a_device_that_refuses_every_cid_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vsock_transport, "VHOST_DEVICE", "/dev/null")
    before = len(list(Path("/proc/self/fd").iterdir()))
    assert vsock_transport.choose("auto") is None
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_qemu_knows_the_options_of_both_devices() -> None:
    for options in (
        vsock_transport.kernel_device(Reserved(cid=77, fd=5)),
        vsock_transport.user_device(),
    ):
        name, *properties = options[-1].split(",")
        known = subprocess.run(
            [accel.QEMU, "-device", f"{name},help"], capture_output=True, text=True, check=True
        ).stdout
        for property in properties:
            assert f"  {property.partition('=')[0]}=" in known


def test_the_device_and_the_relay_are_given_what_was_reserved() -> None:
    reserved = Reserved(cid=77, fd=5)
    assert vsock_transport.kernel_device(reserved) == [
        "-device",
        "vhost-vsock-pci,vhostfd=5,guest-cid=77",
    ]
    assert vsock_transport.kernel_relay(reserved, 6)[-4:] == ["--uds-fd", "6", "--cid", "77"]

"""Network namespaces of tests: what is in them, as `ip` sees it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import Any, TypeVar

from kuasar_agent.linux import syscalls
from kuasar_agent.linux.rtnetlink import RouteSocket
from tests.support.isolation import isolated

T = TypeVar("T")


def in_netns(body: Callable[[RouteSocket], T]) -> T:
    """The result of `body`, run in a process with a network namespace of its own, `lo` up."""

    def inside() -> T:
        ip("link set lo up")
        with RouteSocket() as socket:
            return body(socket)

    return isolated(inside, syscalls.CLONE_NEWNET)


def ip(command: str) -> None:
    subprocess.run(["ip", *command.split()], check=True)


def add_nic(number: int, name: str) -> str:
    """A card with a cable: its hardware address."""
    mac = f"02:00:00:00:00:{number:02x}"
    ip(f"link add dev {name} address {mac} type veth peer name far{number}")
    ip(f"link set far{number} up")
    return mac


def table(command: str) -> Any:
    """What `ip -j COMMAND` says."""
    result = subprocess.run(["ip", "-j", *command.split()], check=True, capture_output=True)
    return json.loads(result.stdout or b"[]")


def addresses(device: str) -> list[str]:
    """Addresses with their prefix lengths, without the link-local one that the kernel makes."""
    (link,) = table(f"addr show dev {device}")
    return [
        f"{info['local']}/{info['prefixlen']}"
        for info in link["addr_info"]
        if info["family"] == "inet" or info["scope"] != "link"
    ]


def routes(version: int = 4) -> list[str]:
    """One line for each route of the main table."""
    keys = ("gateway", "dev", "protocol", "scope", "prefsrc")
    found = []
    for route in table(f"-{version} route show"):
        words = [route["dst"], *(str(route[key]) for key in keys if key in route)]
        found.append(" ".join([*words, *route["flags"]]))
    return found

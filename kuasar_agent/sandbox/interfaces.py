"""Network interfaces as the host wants them: found by hardware address, named, addressed, up.

Names are changed first, all of them at once, so that two interfaces may swap theirs. What is as it
should be stays untouched: a repeated call takes no route and no connection away.
"""

from __future__ import annotations

import errno
import ipaddress
import re
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from socket import AF_INET, AF_INET6
from typing import Any, NamedTuple

from kuasar_agent.errors import InvalidArgument, NotFound, Unknown
from kuasar_agent.linux import rtnetlink as rtnl
from kuasar_agent.linux.rtnetlink import RouteSocket

IFNAMSIZ = 16
"""Bytes of a name with the NUL that ends it."""

_IFA_F_NODAD = 0x02
_MAC = re.compile(r"[0-9a-f]{1,2}(:[0-9a-f]{1,2}){5}", re.IGNORECASE)

Address = ipaddress.IPv4Interface | ipaddress.IPv6Interface


class Interface(NamedTuple):
    """What one interface should be."""

    name: str
    mac: str
    """Lower case, two digits a group."""
    addresses: tuple[Address, ...] = ()
    mtu: int = 0
    """0 leaves it as it is."""
    noarp: bool = False


class Link(NamedTuple):
    """What an interface is."""

    ifindex: int
    name: str
    mac: str
    mtu: int
    flags: int
    stacked: bool
    """It stands on another interface and may have that one's hardware address."""


def parse_interface(
    name: str, mac: str, addresses: Iterable[tuple[str, str]], mtu: int = 0, noarp: bool = False
) -> Interface:
    """An interface from texts, `addresses` as pairs of address and prefix length.

    Raises InvalidArgument, which names the interface and the text at fault.
    """
    if not _MAC.fullmatch(mac):
        raise InvalidArgument(f"interface {name}: Invalid MAC address {mac}")
    _check_name(name)
    if mtu >= 1 << 31:
        raise InvalidArgument(f"interface {name}: invalid mtu {mtu}")
    groups = (f"{int(group, 16):02x}" for group in mac.split(":"))
    parsed = tuple(_parse_address(name, *address) for address in addresses)
    return Interface(name, ":".join(groups), parsed, mtu, noarp)


def check_distinct(interfaces: Sequence[Interface]) -> None:
    """Raises InvalidArgument when two have the same name or hardware address."""
    for kind in ("name", "mac"):
        seen = set()
        for interface in interfaces:
            value = getattr(interface, kind)
            if value in seen:
                raise InvalidArgument(f"interface {interface.name}: {kind} {value} is given twice")
            seen.add(value)


def list_links(socket: RouteSocket) -> list[Link]:
    """Every interface of the network namespace; OSError."""
    return [
        Link(
            ifindex=entry["index"],
            name=entry.get_attr("IFLA_IFNAME"),
            mac=(entry.get_attr("IFLA_ADDRESS") or "").lower(),
            mtu=entry.get_attr("IFLA_MTU"),
            flags=entry["flags"],
            stacked=entry.get_attr("IFLA_LINK") is not None,
        )
        for entry in socket.dump(rtnl.RTM_GETLINK, rtnl.link_message())
    ]


def find_link(links: Iterable[Link], mac: str) -> Link | None:
    """The interface with a hardware address, preferably one that stands on no other."""
    found = [link for link in links if link.mac == mac and not link.flags & rtnl.IFF_LOOPBACK]
    return min(found, key=lambda link: (link.stacked, link.ifindex), default=None)


def configure(socket: RouteSocket, wanted: Sequence[Interface]) -> None:
    """Make interfaces what they should be; each must be there.

    Raises NotFound, or Unknown with the interface's name and the kernel's words.
    """
    links = list_links(socket)
    pairs = []
    for interface in wanted:
        link = find_link(links, interface.mac)
        if link is None:
            raise NotFound(f"interface {interface.name}: Link not found (Address: {interface.mac})")
        pairs.append((interface, link))
    rename(socket, links, {link.ifindex: interface.name for interface, link in pairs})
    for interface, link in pairs:
        _set_up(socket, interface, link)


def rename(socket: RouteSocket, links: Sequence[Link], names: dict[int, str]) -> None:
    """Give interfaces their names, by index; whoever else has one of these names loses it.

    Raises Unknown with both names.
    """
    owners = {link.name: link for link in links}
    moving = [link for link in links if names.get(link.ifindex, link.name) != link.name]
    for link in moving:
        owner = owners.get(names[link.ifindex])
        if owner is not None:
            _rename(socket, owner, _free_name(owner.ifindex, owners))
    for link in moving:
        _rename(socket, link, names[link.ifindex])


def _rename(socket: RouteSocket, link: Link, name: str) -> None:
    def change() -> None:
        message = rtnl.link_message(index=link.ifindex, attrs=[("IFLA_IFNAME", name)])
        socket.change(rtnl.RTM_SETLINK, message)

    with _explained(f"interface {link.name}: Failed to rename it to {name}"):
        try:
            change()
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            # Kernels before 6.2 rename only what is down.
            _set_flags(socket, link.ifindex, 0, rtnl.IFF_UP)
            try:
                change()
            finally:
                _set_flags(socket, link.ifindex, rtnl.IFF_UP, rtnl.IFF_UP)


def _free_name(index: int, taken: Container[str]) -> str:
    """A name for the time being: an index is no other interface's, and 15 bytes are enough."""
    name = f"tmp{index}"
    while name in taken:
        name += "x"
    return name


def _set_up(socket: RouteSocket, interface: Interface, link: Link) -> None:
    name = interface.name
    if interface.mtu and interface.mtu != link.mtu:
        message = rtnl.link_message(index=link.ifindex, attrs=[("IFLA_MTU", interface.mtu)])
        with _explained(f"interface {name}: Failed to set mtu {interface.mtu}"):
            socket.change(rtnl.RTM_SETLINK, message)
    present = _addresses(socket, link.ifindex)
    for address in present.difference(interface.addresses):
        # Without its link-local address an interface has no IPv6 neighbours.
        if not (address.version == 6 and address.is_link_local):
            _remove_address(socket, name, link.ifindex, address)
    # Again: with an address in IPv4 go the later ones of its network.
    present = _addresses(socket, link.ifindex)
    for address in interface.addresses:
        if address not in present:
            _add_address(socket, name, link.ifindex, address)
    noarp = rtnl.IFF_NOARP if interface.noarp else 0
    with _explained(f"interface {name}: Failed to set it up"):
        _set_flags(socket, link.ifindex, rtnl.IFF_UP | noarp, rtnl.IFF_UP | rtnl.IFF_NOARP)


def _set_flags(socket: RouteSocket, index: int, flags: int, mask: int) -> None:
    socket.change(rtnl.RTM_SETLINK, rtnl.link_message(index=index, flags=flags, change=mask))


def _addresses(socket: RouteSocket, index: int) -> set[Address]:
    entries = socket.dump(rtnl.RTM_GETADDR, rtnl.address_message())
    return {
        ipaddress.ip_interface(
            (entry.get_attr("IFA_LOCAL") or entry.get_attr("IFA_ADDRESS"), entry["prefixlen"])
        )
        for entry in entries
        if entry["index"] == index and entry["family"] in (AF_INET, AF_INET6)
    }


def _add_address(socket: RouteSocket, name: str, index: int, address: Address) -> None:
    message = _address_message(index, address)
    if address.version == 6:
        # Services may bind at once, without the seconds of duplicate address detection.
        message["flags"] = _IFA_F_NODAD
    elif address.network.prefixlen < 31:
        broadcast = ("IFA_BROADCAST", str(address.network.broadcast_address))
        message["attrs"].append(broadcast)
    with _explained(f"interface {name}: Failed to add address {address}"):
        try:
            socket.change(rtnl.RTM_NEWADDR, message, rtnl.NLM_F_CREATE | rtnl.NLM_F_EXCL)
        except FileExistsError:
            pass  # the link-local address that the kernel made meanwhile


def _remove_address(socket: RouteSocket, name: str, index: int, address: Address) -> None:
    with _explained(f"interface {name}: Failed to remove address {address}"):
        try:
            socket.change(rtnl.RTM_DELADDR, _address_message(index, address))
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL:  # gone with another one of its network
                raise


def _address_message(index: int, address: Address) -> Any:
    text = str(address.ip)
    attrs = [("IFA_ADDRESS", text)]
    if address.version == 4:
        attrs.append(("IFA_LOCAL", text))
    family = AF_INET if address.version == 4 else AF_INET6
    prefix = address.network.prefixlen
    return rtnl.address_message(index=index, family=family, prefixlen=prefix, attrs=attrs)


def _check_name(name: str) -> None:
    """As the kernel's dev_valid_name(); `%` would be a pattern for it, and `lo` be taken away."""
    size = len(name.encode())
    if not 0 < size < IFNAMSIZ or name in (".", "..", "lo") or re.search(r"[/:%\s\0]", name):
        raise InvalidArgument(f"invalid interface name {name!r} (limit: {IFNAMSIZ - 1} bytes)")


def _parse_address(name: str, text: str, prefix: str) -> Address:
    try:
        address = ipaddress.ip_address(text)
    except ValueError as error:
        raise InvalidArgument(f"interface {name}: invalid ip address: {text}: {error}") from None
    if not (prefix.isascii() and prefix.isdigit() and int(prefix) <= address.max_prefixlen):
        raise InvalidArgument(f"interface {name}: invalid ip and mask: {text}/{prefix}")
    return ipaddress.ip_interface(f"{address}/{prefix}")


@contextmanager
def _explained(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unknown(f"{what}: {error.strerror}") from None

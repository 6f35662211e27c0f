"""Network interfaces as the host wants them: found by hardware address, named, addressed, up.

All names are changed before anything else, so that two interfaces may swap theirs. A property that
has the wanted value already is not written again, so that a repeated call removes no route and
breaks no connection.
"""

from __future__ import annotations

import errno
import ipaddress
import re
from collections.abc import Container, Iterable, Sequence
from socket import AF_INET, AF_INET6
from typing import Any, NamedTuple

from kuasar_agent.errors import InvalidArgument, NotFound, explained
from kuasar_agent.linux import rtnetlink as rtnl
from kuasar_agent.linux.rtnetlink import RouteSocket
from kuasar_agent.sandbox import ipv6

IFNAMSIZ = 16
"""Bytes of a name with the NUL that ends it."""

_IFA_F_NODAD = 0x02
_MAC = re.compile(r"[0-9a-f]{1,2}(:[0-9a-f]{1,2}){5}", re.IGNORECASE)

Address = ipaddress.IPv4Interface | ipaddress.IPv6Interface


class Interface(NamedTuple):
    """The wanted properties of an interface."""

    name: str
    mac: str
    """Lower case, two digits a group."""
    addresses: tuple[Address, ...] = ()
    mtu: int = 0
    """Bytes; 0 leaves it as it is."""
    noarp: bool = False


class Link(NamedTuple):
    """The present properties of an interface."""

    ifindex: int
    name: str
    mac: str
    mtu: int
    flags: int
    stacked: bool
    """Whether it is built on another interface, whose hardware address it may share."""


def parse_interface(
    name: str, mac: str, addresses: Iterable[tuple[str, str]], mtu: int = 0, noarp: bool = False
) -> Interface:
    """Return an interface from texts; `addresses` are pairs of address and prefix length.

    Raises:
        InvalidArgument: a text is not valid; the message names the interface and the text.
    """
    if not _MAC.fullmatch(mac):
        # contract: the words of Kuasar's vmm-task
        raise InvalidArgument(f"interface {name}: Invalid MAC address {mac}")
    _check_name(name)
    if mtu >= 1 << 31:
        raise InvalidArgument(f"interface {name}: invalid mtu {mtu}")
    groups = (f"{int(group, 16):02x}" for group in mac.split(":"))
    parsed = tuple(_parse_address(name, *address) for address in addresses)
    return Interface(name, ":".join(groups), parsed, mtu, noarp)


def check_distinct(interfaces: Sequence[Interface]) -> None:
    """Check that no two interfaces have the same name or hardware address.

    Raises:
        InvalidArgument: two have.
    """
    for kind in ("name", "mac"):
        seen = set()
        for interface in interfaces:
            value = getattr(interface, kind)
            if value in seen:
                raise InvalidArgument(f"interface {interface.name}: {kind} {value} is given twice")
            seen.add(value)


def list_links(socket: RouteSocket) -> list[Link]:
    """Return every interface of the network namespace.

    Raises:
        OSError: the kernel refuses.
    """
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
    """Return the interface with a hardware address, preferably one that is not stacked."""
    found = [link for link in links if link.mac == mac and not link.flags & rtnl.IFF_LOOPBACK]
    return min(found, key=lambda link: (link.stacked, link.ifindex), default=None)


def configure(socket: RouteSocket, wanted: Sequence[Interface]) -> list[str]:
    """Give interfaces, which must exist, their wanted properties.

    Returns:
        The addresses that were left out because IPv6 is off, as `eth0 fd00::2/64`.

    Raises:
        NotFound: an interface does not exist.
        Unknown: the kernel refuses; the message has the interface's name and the kernel's words.
    """
    links = list_links(socket)
    pairs = []
    for interface in wanted:
        link = find_link(links, interface.mac)
        if link is None:
            raise no_link(interface)
        pairs.append((interface, link))
    rename(socket, links, {link.ifindex: interface.name for interface, link in pairs})
    return [left for interface, link in pairs for left in _set_up(socket, interface, link)]


def no_link(interface: Interface) -> NotFound:
    """Return the error for an interface that is not plugged in."""
    # contract: the words of Kuasar's vmm-task
    return NotFound(f"interface {interface.name}: Link not found (Address: {interface.mac})")


def rename(socket: RouteSocket, links: Sequence[Link], names: dict[int, str]) -> None:
    """Give interfaces their names, by index; another interface that has one of them loses it.

    Raises:
        Unknown: the kernel refuses; the message has both names.
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

    with explained(f"interface {link.name}: Failed to rename it to {name}"):
        try:
            change()
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            # Kernels before 6.2 refuse to rename an interface that is up.
            _set_flags(socket, link.ifindex, 0, rtnl.IFF_UP)
            try:
                change()
            finally:
                _set_flags(socket, link.ifindex, rtnl.IFF_UP, rtnl.IFF_UP)


def _free_name(index: int, taken: Container[str]) -> str:
    """Return a temporary name: unique by the index, and within 15 bytes."""
    name = f"tmp{index}"
    while name in taken:
        name += "x"
    return name


def _set_up(socket: RouteSocket, interface: Interface, link: Link) -> list[str]:
    """Set MTU, addresses and flags; return the addresses that were left out."""
    name = interface.name
    if interface.mtu and interface.mtu != link.mtu:
        message = rtnl.link_message(index=link.ifindex, attrs=[("IFLA_MTU", interface.mtu)])
        with explained(f"interface {name}: Failed to set mtu {interface.mtu}"):
            socket.change(rtnl.RTM_SETLINK, message)
    left_out = _set_addresses(socket, interface, link.ifindex)
    noarp = rtnl.IFF_NOARP if interface.noarp else 0
    with explained(f"interface {name}: Failed to set it up"):
        _set_flags(socket, link.ifindex, rtnl.IFF_UP | noarp, rtnl.IFF_UP | rtnl.IFF_NOARP)
    return left_out


def _set_addresses(socket: RouteSocket, interface: Interface, index: int) -> list[str]:
    present = _addresses(socket, index)
    for address in present.difference(interface.addresses):
        # Without its link-local address an interface reaches no IPv6 neighbour.
        if not (address.version == 6 and address.is_link_local):
            _remove_address(socket, interface.name, index, address)
    # Read again: with an IPv4 address the kernel removes the later ones of its network.
    present = _addresses(socket, index)
    missing = [address for address in interface.addresses if address not in present]
    only_ipv4 = any(address.version == 6 for address in missing) and ipv6.is_off(interface.name)
    left_out = []
    for address in missing:
        if address.version == 6 and only_ipv4:
            left_out.append(f"{interface.name} {address}")
        else:
            _add_address(socket, interface.name, index, address)
    return left_out


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
        # Without it a service cannot bind the address for the seconds of duplicate detection.
        message["flags"] = _IFA_F_NODAD
    elif address.network.prefixlen < 31:
        broadcast = ("IFA_BROADCAST", str(address.network.broadcast_address))
        message["attrs"].append(broadcast)
    with explained(f"interface {name}: Failed to add address {address}"):
        try:
            socket.change(rtnl.RTM_NEWADDR, message, rtnl.NLM_F_CREATE | rtnl.NLM_F_EXCL)
        except FileExistsError:
            pass  # the kernel made this link-local address since the addresses were read


def _remove_address(socket: RouteSocket, name: str, index: int, address: Address) -> None:
    with explained(f"interface {name}: Failed to remove address {address}"):
        try:
            socket.change(rtnl.RTM_DELADDR, _address_message(index, address))
        except OSError as error:
            # EADDRNOTAVAIL: the kernel removed it with another address of its network.
            if error.errno != errno.EADDRNOTAVAIL:
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
    """Check a name as the kernel's dev_valid_name() does; refuse `%`, a pattern to it, and `lo`."""
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

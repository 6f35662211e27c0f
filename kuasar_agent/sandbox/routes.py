"""The main table's routes as the host wants them.

Only unicast routes through an interface are replaced. Kept are the routes that the kernel made for
addresses, those of other tables, those without an interface, and those that are wanted.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from socket import AF_INET, AF_INET6
from typing import Any, NamedTuple

from kuasar_agent.errors import InvalidArgument, NotFound, Unknown
from kuasar_agent.linux import rtnetlink as rtnl
from kuasar_agent.linux.rtnetlink import RouteSocket
from kuasar_agent.log import get_logger
from kuasar_agent.sandbox import ipv6
from kuasar_agent.sandbox.interfaces import list_links

log = get_logger(__name__)

# linux/rtnetlink.h
_TABLE_MAIN = 254
_UNICAST = 1
_PROTOCOL_KERNEL = 2
_PROTOCOL_BOOT = 3
_ONLINK = 4
_CLONED = 0x200

_FAMILIES = {4: AF_INET, 6: AF_INET6}

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_EVERYWHERE: dict[int, Network] = {
    4: ipaddress.IPv4Network("0.0.0.0/0"),
    6: ipaddress.IPv6Network("::/0"),
}


class Route(NamedTuple):
    """A route; addresses are texts in their shortest form, an empty one is absent."""

    dest: Network
    device: str
    gateway: str = ""
    source: str = ""
    """The sender's address of packets on this route (RTA_PREFSRC)."""
    scope: int = 0
    """RT_SCOPE_* of rtnetlink(7): 0 for the universe, 253 for the link; always 0 for IPv6."""
    onlink: bool = False
    """Whether the gateway is taken to be behind the interface although no route leads to it."""

    def __str__(self) -> str:
        family = f"IP v{self.dest.version} route"
        dest = "default" if self.dest.prefixlen == 0 else self.dest
        where = f"gtw: {self.gateway}, dev: {self.device}"
        return f"{family} (src: {self.source}, dst: {dest}, {where})"


class Entry(NamedTuple):
    """A route that the kernel has."""

    route: Route
    protocol: int
    message: Any
    """The netlink message that names the route in a request to remove it."""


class GivenRoute(NamedTuple):
    """A route in the texts and numbers of a request."""

    dest: str
    """A network or a single address; empty for the default route."""
    gateway: str
    device: str
    source: str = ""
    version: int = 4
    scope: int = 0
    flags: int = 0
    """RTNH_F_* of linux/rtnetlink.h on the host. Only ONLINK is kept, and only with a gateway: the
    others report the state of the route there."""


def parse_route(given: GivenRoute) -> Route:
    """Return the route of a request.

    Raises:
        InvalidArgument: a text is not valid; the message has it.
    """
    version = given.version
    network = _parse_network(given.dest, version) if given.dest else _EVERYWHERE[version]
    gateway = _parse_address(given.gateway, version, "gateway")
    return Route(
        network,
        given.device,
        gateway,
        _parse_address(given.source.partition("/")[0], version, "source"),
        given.scope & 0xFF if version == 4 else 0,
        bool(given.flags & _ONLINK and gateway),
    )


def replace(socket: RouteSocket, wanted: Sequence[Route]) -> list[str]:
    """Remove the routes that are not wanted, then add the missing ones, those with a gateway last.

    Returns:
        The routes that were left out because IPv6 is off.

    Raises:
        NotFound: the interface of a route does not exist.
        Unknown: the kernel refuses; the message has the route and the kernel's words.
    """
    names = {link.ifindex: link.name for link in list_links(socket)}
    indexes = {name: index for index, name in names.items()}
    for route in wanted:
        if route.device not in indexes:
            raise NotFound(f"{route}: no interface {route.device}")
    left_out = [route for route in wanted if route.dest.version == 6 and ipv6.is_off(route.device)]
    wanted = [route for route in wanted if route not in left_out]
    entries = list(_entries(socket, names))
    kept = {entry.route for entry in entries if entry.protocol == _PROTOCOL_BOOT} & {*wanted}
    connected = {
        (entry.route.dest, entry.route.device)
        for entry in entries
        if entry.protocol == _PROTOCOL_KERNEL and not entry.route.gateway
    }
    for entry in entries:
        if entry.protocol != _PROTOCOL_KERNEL and entry.route not in kept:
            _remove(socket, entry)
    for route in sorted(wanted, key=lambda route: bool(route.gateway)):
        if route in kept or (not route.gateway and (route.dest, route.device) in connected):
            continue
        _add(socket, route, indexes[route.device])
    return [str(route) for route in left_out]


def _entries(socket: RouteSocket, names: dict[int, str]) -> Iterator[Entry]:
    for family in (AF_INET, AF_INET6):
        for found in socket.dump(rtnl.RTM_GETROUTE, rtnl.route_message(family=family)):
            attrs = dict(found["attrs"])
            device = names.get(attrs.get("RTA_OIF", 0), "lo")
            if (
                # A kernel without IPv6 answers a request for its routes with those of IPv4.
                found["family"] == family
                and found["type"] == _UNICAST
                and attrs.get("RTA_TABLE", found["table"]) == _TABLE_MAIN
                and not found["flags"] & _CLONED
                and device != "lo"
            ):
                yield Entry(_route(found, attrs, device), found["proto"], _copy(found, attrs))


def _route(found: Any, attrs: dict[str, Any], device: str) -> Route:
    version = 4 if found["family"] == AF_INET else 6
    dest = _EVERYWHERE[version]
    if "RTA_DST" in attrs:
        dest = ipaddress.ip_network((attrs["RTA_DST"], found["dst_len"]))
    return Route(
        dest,
        device,
        attrs.get("RTA_GATEWAY", ""),
        attrs.get("RTA_PREFSRC", ""),
        found["scope"] if version == 4 else 0,
        bool(found["flags"] & _ONLINK),
    )


def _copy(found: Any, attrs: dict[str, Any]) -> Any:
    """Return a message that names the route, without the fields that the kernel only reports."""
    fields = ("family", "dst_len", "tos", "table", "proto", "scope", "type")
    keys = ("RTA_DST", "RTA_GATEWAY", "RTA_OIF", "RTA_PRIORITY", "RTA_TABLE")
    return rtnl.route_message(
        **{field: found[field] for field in fields},
        attrs=[(key, attrs[key]) for key in keys if key in attrs],
    )


def _remove(socket: RouteSocket, entry: Entry) -> None:
    try:
        socket.change(rtnl.RTM_DELROUTE, entry.message)
    except ProcessLookupError:
        pass  # ESRCH: the kernel removed it, for example with an address
    except OSError as error:
        raise Unknown(f"Failed to remove {entry.route}: {error.strerror}") from None


def _add(socket: RouteSocket, route: Route, index: int) -> None:
    attrs: list[tuple[str, Any]] = [("RTA_OIF", index)]
    if route.dest.prefixlen:
        attrs.append(("RTA_DST", str(route.dest.network_address)))
    if route.gateway:
        attrs.append(("RTA_GATEWAY", route.gateway))
    if route.source:
        attrs.append(("RTA_PREFSRC", route.source))
    message = rtnl.route_message(
        family=_FAMILIES[route.dest.version],
        dst_len=route.dest.prefixlen,
        table=_TABLE_MAIN,
        proto=_PROTOCOL_BOOT,
        scope=route.scope,
        type=_UNICAST,
        flags=_ONLINK if route.onlink else 0,
        attrs=attrs,
    )
    try:
        socket.change(rtnl.RTM_NEWROUTE, message, rtnl.NLM_F_CREATE | rtnl.NLM_F_EXCL)
    except FileExistsError:
        log.debug("route is there already", route=str(route))
    except OSError as error:
        raise Unknown(f"Failed to add {route}: {error.strerror}") from None


def _parse_network(text: str, version: int) -> Network:
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise InvalidArgument(f"failed to parse ipv{version} network: {text}: {error}") from None
    if network.version != version:
        raise InvalidArgument(f"failed to parse ipv{version} network: {text}")
    return network


def _parse_address(text: str, version: int, role: str) -> str:
    if not text:
        return ""
    try:
        address = ipaddress.ip_address(text)
    except ValueError as error:
        raise InvalidArgument(f"invalid {role}: {text}: {error}") from None
    if address.version != version:
        raise InvalidArgument(f"invalid {role} of an ipv{version} route: {text}")
    return str(address)

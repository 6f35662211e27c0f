"""Interfaces in network namespaces of their own, compared with what `ip` says."""

from __future__ import annotations

from pathlib import Path

import pytest

from kuasar_agent.errors import AgentError, InvalidArgument
from kuasar_agent.linux.rtnetlink import RouteSocket
from kuasar_agent.sandbox.interfaces import (
    Interface,
    check_distinct,
    configure,
    find_link,
    list_links,
    parse_interface,
)
from tests.support.links import add_nic, addresses, in_netns, ip, table


def refusal(socket: RouteSocket, wanted: list[Interface]) -> str:
    try:
        configure(socket, wanted)
    except AgentError as error:
        return f"{type(error).__name__}: {error.message}"
    return ""


def test_an_interface_becomes_what_it_should_be_and_stays_so() -> None:
    def body(socket: RouteSocket) -> None:
        mac = add_nic(1, "card")
        ip("addr add 192.0.2.1/24 dev card")
        ip("link set card up")
        given = [("10.0.0.2", "24"), ("10.0.0.3", "24"), ("10.1.0.1", "32"), ("fd00::2", "64")]
        wanted = [parse_interface("eth0", mac.upper(), given, 1400)]
        for _ in range(2):
            configure(socket, wanted)
            (link,) = table("addr show dev eth0")
            assert (link["address"], link["mtu"]) == (mac, 1400)
            assert {"UP", "LOWER_UP"} <= set(link["flags"])
            assert sorted(addresses("eth0")) == sorted("/".join(pair) for pair in given)
            by_address = {info["local"]: info for info in link["addr_info"]}
            assert by_address["10.0.0.2"]["broadcast"] == "10.0.0.255"
            assert "broadcast" not in by_address["10.1.0.1"]
            assert by_address["fd00::2"]["nodad"]
            assert "tentative" not in by_address["fd00::2"]

    in_netns(body)


def test_a_repeated_call_takes_no_route_away() -> None:
    def body(socket: RouteSocket) -> None:
        wanted = [parse_interface("eth0", add_nic(1, "card"), [("10.0.0.2", "24")], 1500)]
        configure(socket, wanted)
        ip("route add default via 10.0.0.1")
        before = table("route show")
        configure(socket, wanted)
        assert table("route show") == before

    in_netns(body)


def test_an_address_survives_the_one_whose_network_it_shared() -> None:
    def body(socket: RouteSocket) -> None:
        mac = add_nic(1, "eth0")
        configure(socket, [parse_interface("eth0", mac, [("10.0.0.1", "24"), ("10.0.0.2", "24")])])
        configure(socket, [parse_interface("eth0", mac, [("10.0.0.2", "24")])])
        assert addresses("eth0") == ["10.0.0.2/24"]

    in_netns(body)


def test_ipv6_alone_works_and_its_link_local_address_is_the_hosts() -> None:
    def body(socket: RouteSocket) -> None:
        mac = add_nic(1, "card")
        given = [("fd00:1::2", "64"), ("fe80::ff:fe00:1", "64")]
        for _ in range(2):
            configure(socket, [parse_interface("eth0", mac, given)])
            (link,) = table("addr show dev eth0")
            found = {f"{info['local']}/{info['prefixlen']}" for info in link["addr_info"]}
            assert found == {"fd00:1::2/64", "fe80::ff:fe00:1/64"}

    in_netns(body)


def test_names_are_swapped_even_of_interfaces_that_are_up() -> None:
    def body(socket: RouteSocket) -> None:
        first, second = add_nic(1, "eth0"), add_nic(2, "eth1")
        ip("link set eth0 up")
        ip("link set eth1 up")
        configure(socket, [parse_interface("eth1", first, []), parse_interface("eth0", second, [])])
        names = {link["ifname"]: link["address"] for link in table("link show")}
        assert (names["eth0"], names["eth1"]) == (second, first)
        assert not [name for name in names if name.startswith("tmp")]

    in_netns(body)


def test_names_go_round_and_a_stranger_in_the_way_steps_aside() -> None:
    def body(socket: RouteSocket) -> None:
        long = "a" * 15
        macs = [add_nic(1, "a"), add_nic(2, "b"), add_nic(3, long)]
        stranger = add_nic(4, "d")
        taken = {link.mac: link.ifindex for link in list_links(socket)}[stranger]
        ip(f"link set far1 name tmp{taken}")  # the name that would be used
        names = ["b", long, "d"]
        pairs = zip(names, macs, strict=True)
        configure(socket, [parse_interface(name, mac, []) for name, mac in pairs])
        found = {link["address"]: link["ifname"] for link in table("link show")}
        assert [found[mac] for mac in macs] == names
        assert found[stranger] == f"tmp{taken}x"

    in_netns(body)


def test_arp_is_switched_off_and_on_again() -> None:
    def body(socket: RouteSocket) -> None:
        mac = add_nic(1, "eth0")
        for noarp in (True, False):
            configure(socket, [parse_interface("eth0", mac, [], noarp=noarp)])
            (link,) = table("link show dev eth0")
            assert ("NOARP" in link["flags"]) is noarp

    in_netns(body)


def test_a_card_is_preferred_to_what_stands_on_it() -> None:
    def body(socket: RouteSocket) -> None:
        ip("tuntap add mode tap dev tap0")
        (link,) = table("link show dev tap0")
        ip("link add link tap0 name above type macvlan mode passthru")
        assert [each["address"] for each in table("link show")].count(link["address"]) == 2
        found = find_link(list_links(socket), link["address"])
        assert found is not None
        assert found.name == "tap0"

    in_netns(body)


def test_what_the_kernel_refuses_is_said_with_the_interface() -> None:
    def body(socket: RouteSocket) -> list[str]:
        mac = add_nic(1, "eth0")
        return [
            refusal(socket, [parse_interface("eth0", mac, [], 70_000)]),
            refusal(socket, [parse_interface("eth0", "02:00:00:00:00:99", [])]),
            refusal(socket, [parse_interface("eth0", mac, [("ff02::1", "64")])]),
        ]

    mtu, missing, multicast = in_netns(body)
    assert mtu.startswith("Unknown: interface eth0: Failed to set mtu 70000: Invalid argument")
    assert missing == "NotFound: interface eth0: Link not found (Address: 02:00:00:00:00:99)"
    assert "interface eth0: Failed to add address ff02::1/64: " in multicast


@pytest.mark.parametrize(
    ("name", "mac", "address", "text"),
    [
        ("eth0", "02:00:00:00:00", [], "Invalid MAC address 02:00:00:00:00"),
        ("eth0", "02:00:00:00:00:0g", [], "Invalid MAC address"),
        ("eth0", "02:00:00:00:00:001", [], "Invalid MAC address"),
        ("", "02:00:00:00:00:01", [], "invalid interface name"),
        ("lo", "02:00:00:00:00:01", [], "invalid interface name"),
        ("a" * 16, "02:00:00:00:00:01", [], "invalid interface name"),
        ("eth%d", "02:00:00:00:00:01", [], "invalid interface name"),
        ("a/b", "02:00:00:00:00:01", [], "invalid interface name"),
        ("..", "02:00:00:00:00:01", [], "invalid interface name"),
        ("eth0", "02:00:00:00:00:01", [("10.0.0", "24")], "invalid ip address: 10.0.0: "),
        ("eth0", "02:00:00:00:00:01", [("", "24")], "invalid ip address: "),
        ("eth0", "02:00:00:00:00:01", [("10.0.0.1", "33")], "invalid ip and mask: 10.0.0.1/33"),
        ("eth0", "02:00:00:00:00:01", [("10.0.0.1", "")], "invalid ip and mask: 10.0.0.1/"),
        ("eth0", "02:00:00:00:00:01", [("fd00::1", "129")], "invalid ip and mask"),
        ("eth0", "02:00:00:00:00:01", [("10.0.0.1", "255.0.0.0")], "invalid ip and mask"),
    ],
)
def test_bad_texts_are_invalid_arguments(
    name: str, mac: str, address: list[tuple[str, str]], text: str
) -> None:
    with pytest.raises(InvalidArgument) as raised:
        parse_interface(name, mac, address)
    assert text in raised.value.message


def test_two_of_one_name_or_address_are_refused() -> None:
    one = parse_interface("eth0", "02:00:00:00:00:01", [])
    for other in (one._replace(mac="02:00:00:00:00:02"), one._replace(name="eth1")):
        with pytest.raises(InvalidArgument, match="is given twice"):
            check_distinct([one, other])


@pytest.mark.parametrize("of", ["all", "eth0"])
def test_addresses_of_a_family_that_is_off_are_left_out(of: str) -> None:
    def body(socket: RouteSocket) -> list[list[str]]:
        mac = add_nic(1, "eth0")
        Path(f"/proc/sys/net/ipv6/conf/{of}/disable_ipv6").write_text("1")
        given = [("fe80::ff:fe00:1", "64"), ("10.0.0.2", "24"), ("fd00::2", "64")]
        wanted = [parse_interface("eth0", mac, given)]
        return [*(configure(socket, wanted) for _ in range(2)), addresses("eth0")]

    left_out = ["eth0 fe80::ff:fe00:1/64", "eth0 fd00::2/64"]
    assert in_netns(body) == [left_out, left_out, ["10.0.0.2/24"]]


def test_an_interface_too_narrow_for_a_family_gets_the_other_one() -> None:
    def body(socket: RouteSocket) -> tuple[list[str], list[str]]:
        wanted = [
            parse_interface("eth0", add_nic(1, "a"), [("10.0.0.2", "24"), ("fd00::2", "64")], 1200),
            parse_interface("eth1", add_nic(2, "b"), [("fd01::2", "64")]),
        ]
        return configure(socket, wanted), [*addresses("eth0"), *addresses("eth1")]

    assert in_netns(body) == (["eth0 fd00::2/64"], ["10.0.0.2/24", "fd01::2/64"])

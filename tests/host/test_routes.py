"""Routes in network namespaces of their own, compared with what `ip` says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from kuasar_agent.errors import AgentError, InvalidArgument
from kuasar_agent.linux.rtnetlink import RouteSocket
from kuasar_agent.sandbox import routes as domain
from kuasar_agent.sandbox.interfaces import configure, parse_interface
from kuasar_agent.sandbox.routes import GivenRoute, Route, replace
from tests.support.links import add_nic, in_netns, ip, routes, table

CONNECTED = "10.0.0.0/24 eth0 kernel link 10.0.0.2"


def parse_route(*texts: str, **numbers: int) -> Route:
    return domain.parse_route(GivenRoute(*texts, **numbers))  # type: ignore[arg-type]


def make_eth0(socket: RouteSocket) -> None:
    given = [("10.0.0.2", "24"), ("fd00::2", "64")]
    configure(socket, [parse_interface("eth0", add_nic(1, "eth0"), given)])


def refusal(socket: RouteSocket, wanted: Sequence[Route]) -> str:
    try:
        replace(socket, wanted)
    except AgentError as error:
        return f"{type(error).__name__}: {error.message}"
    return ""


def test_gateways_come_last_and_connected_routes_are_there_already() -> None:
    def body(socket: RouteSocket) -> None:
        make_eth0(socket)
        wanted = [
            parse_route("", "10.9.0.1", "eth0"),
            parse_route("10.0.0.0/24", "", "eth0", scope=253),
            parse_route("10.9.0.0/24", "", "eth0", "10.0.0.2", scope=253),
            parse_route("10.8.0.1", "10.0.0.7", "eth0", flags=1 | 16),
        ]
        for _ in range(2):
            replace(socket, wanted)
            assert sorted(routes()) == [
                CONNECTED,
                "10.8.0.1 10.0.0.7 eth0",
                "10.9.0.0/24 eth0 link 10.0.0.2",
                "default 10.9.0.1 eth0",
            ]

    in_netns(body)


def test_a_gateway_may_be_where_no_route_leads() -> None:
    def body(socket: RouteSocket) -> list[str]:
        make_eth0(socket)
        replace(socket, [parse_route("", "169.254.1.1", "eth0", flags=4)])
        return routes()

    assert in_netns(body) == ["default 169.254.1.1 eth0 onlink", CONNECTED]


def test_ipv6_routes_and_its_default() -> None:
    def body(socket: RouteSocket) -> None:
        make_eth0(socket)
        wanted = [
            parse_route("", "fd00::1", "eth0", version=6),
            parse_route("fd00::/64", "", "eth0", version=6, scope=253),
            parse_route("fe80::/64", "", "eth0", version=6),
            parse_route("fd01::/48", "fd00::9", "eth0", "fd00::2", version=6),
        ]
        for _ in range(2):
            replace(socket, wanted)
            found = [route for route in routes(6) if " eth0" in route]
            assert found == [
                "fd00::/64 eth0 kernel",
                "fd01::/48 fd00::9 eth0 fd00::2",
                "fe80::/64 eth0 kernel",
                "default fd00::1 eth0",
            ]

    in_netns(body)


def test_only_unicast_routes_of_the_main_table_that_the_kernel_did_not_make_go() -> None:
    def body(socket: RouteSocket) -> None:
        make_eth0(socket)
        ip("route add 10.1.0.0/16 via 10.0.0.1")
        ip("route add 10.1.0.0/16 via 10.0.0.1 metric 7 proto ra")
        ip("route add 10.2.0.0/16 via 10.0.0.1 table 100")
        ip("route add blackhole 10.3.0.0/16")
        ip("route add unreachable fd09::/16")
        ip("route add 10.4.0.0/16 dev lo")
        ip("-6 route add default via fd00::1")
        replace(socket, [])
        assert routes() == [CONNECTED, "10.3.0.0/16", "10.4.0.0/16 lo link"]
        assert not [route for route in routes(6) if route.startswith("default")]
        assert table("route show table 100") != []

    in_netns(body)


def test_200_routes_are_set_and_set_again_and_taken_away() -> None:
    def body(socket: RouteSocket) -> None:
        make_eth0(socket)
        wanted = [parse_route(f"10.7.{n}.0/24", "10.0.0.1", "eth0") for n in range(200)]
        for _ in range(2):
            replace(socket, wanted)
            assert len(routes()) == 201
        replace(socket, wanted[:1])
        assert routes() == [CONNECTED, "10.7.0.0/24 10.0.0.1 eth0"]

    in_netns(body)


def test_an_interface_may_have_lo_in_its_name() -> None:
    def body(socket: RouteSocket) -> list[str]:
        mac = add_nic(1, "eth-lo1")
        configure(socket, [parse_interface("eth-lo1", mac, [("10.0.0.2", "24")])])
        ip("route add default via 10.0.0.1")
        replace(socket, [])
        return routes()

    assert in_netns(body) == ["10.0.0.0/24 eth-lo1 kernel link 10.0.0.2"]


def test_what_the_kernel_refuses_is_said_with_the_route() -> None:
    def body(socket: RouteSocket) -> list[str]:
        make_eth0(socket)
        return [
            refusal(socket, [parse_route("10.1.0.0/16", "172.16.0.1", "eth0")]),
            refusal(socket, [parse_route("10.1.0.0/16", "", "eth7")]),
            refusal(socket, [parse_route("10.1.0.0/16", "", "eth0", "9.9.9.9")]),
        ]

    unreachable, no_device, source = in_netns(body)
    about = "IP v4 route (src: , dst: 10.1.0.0/16, gtw: 172.16.0.1, dev: eth0)"
    assert unreachable.startswith(f"Unknown: Failed to add {about}: ")
    assert "gateway" in unreachable
    assert no_device.startswith("NotFound: ")
    assert no_device.endswith("no interface eth7")
    assert "src: 9.9.9.9" in source


@pytest.mark.parametrize(
    ("dest", "gateway", "source", "version", "text"),
    [
        ("10.0.0/24", "", "", 4, "failed to parse ipv4 network: 10.0.0/24"),
        ("10.0.0.0/33", "", "", 4, "failed to parse ipv4 network"),
        ("fd00::/64", "", "", 4, "failed to parse ipv4 network: fd00::/64"),
        ("10.0.0.0/8", "", "", 6, "failed to parse ipv6 network"),
        ("", "x", "", 4, "invalid gateway: x"),
        ("", "fd00::1", "", 4, "invalid gateway of an ipv4 route: fd00::1"),
        ("", "", "x", 4, "invalid source: x"),
    ],
)
def test_bad_texts_are_invalid_arguments(
    dest: str, gateway: str, source: str, version: int, text: str
) -> None:
    with pytest.raises(InvalidArgument) as raised:
        parse_route(dest, gateway, "eth0", source, version=version)
    assert text in raised.value.message


def test_onlink_needs_a_gateway_and_a_source_no_length() -> None:
    route = parse_route("10.0.0.7/8", "", "eth0", "10.0.0.1/32", flags=4)
    assert (str(route.dest), route.source, route.onlink) == ("10.0.0.0/8", "10.0.0.1", False)


def test_routes_of_a_family_that_is_off_are_left_out() -> None:
    def body(socket: RouteSocket) -> tuple[list[list[str]], list[str]]:
        make_eth0(socket)
        Path("/proc/sys/net/ipv6/conf/all/disable_ipv6").write_text("1")
        wanted = [
            parse_route("", "10.0.0.1", "eth0"),
            parse_route("", "fd00::1", "eth0", version=6),
            parse_route("fd01::/64", "", "eth0", version=6),
        ]
        return [replace(socket, wanted) for _ in range(2)], routes()

    left_out = [
        "IP v6 route (src: , dst: default, gtw: fd00::1, dev: eth0)",
        "IP v6 route (src: , dst: fd01::/64, gtw: , dev: eth0)",
    ]
    assert in_netns(body) == ([left_out] * 2, ["default 10.0.0.1 eth0", CONNECTED])

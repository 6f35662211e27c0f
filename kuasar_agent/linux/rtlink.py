"""The message of a link with the attributes that the agent reads and writes."""

from __future__ import annotations

from pyroute2.netlink import nlmsg


class LinkMessage(nlmsg):  # type: ignore[misc]
    """RTM_NEWLINK and its like (linux/rtnetlink.h, linux/if_link.h).

    pyroute2's own message imports a module for every kind of link.

        struct ifinfomsg {
            unsigned char  ifi_family;
            unsigned char  __ifi_pad;
            unsigned short ifi_type;
            int            ifi_index;
            unsigned       ifi_flags;
            unsigned       ifi_change;
        };
    """

    fields = (
        ("family", "B"),
        ("__align", "x"),
        ("ifi_type", "H"),
        ("index", "i"),
        ("flags", "I"),
        ("change", "I"),
    )
    nla_map = (
        (1, "IFLA_ADDRESS", "l2addr"),
        (3, "IFLA_IFNAME", "asciiz"),
        (4, "IFLA_MTU", "uint32"),
        (5, "IFLA_LINK", "uint32"),
    )

"""Whether IPv6 can be used on an interface.

IPv6 is off where the kernel was booted with `ipv6.disable=1` or built without it, where the pod
sets `net.ipv6.conf.all.disable_ipv6`, and on an interface whose MTU is below 1280 bytes. Kuasar's
host sends IPv6 addresses and routes all the same; the kernel refuses each of them.

Source: the kernel's Documentation/networking/ipv6.rst and ip-sysctl.rst (disable_ipv6).
"""

from __future__ import annotations

from kuasar_agent.linux.files import read_text


def is_off(device: str) -> bool:
    """Return whether the kernel refuses IPv6 on an interface of this network namespace.

    Raises:
        OSError: the kernel's answer cannot be read.
    """
    try:
        return read_text(f"/proc/sys/net/ipv6/conf/{device}/disable_ipv6").strip() != "0"
    except FileNotFoundError:
        return True

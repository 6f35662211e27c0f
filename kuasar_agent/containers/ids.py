"""Container and exec ids, which become path components and arguments of the runtime."""

from __future__ import annotations

import re

from kuasar_agent.errors import InvalidArgument

# No leading dot (the host's temporary files) or dash (the runtime would read an option).
_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,127}")


def check_id(value: str, what: str = "container id") -> str:
    """Return `value` unchanged.

    Raises:
        InvalidArgument: it is not safe as a path component.
    """
    if not _ID.fullmatch(value):
        raise InvalidArgument(f"invalid {what} {value!r}")
    return value


def check_exec_id(value: str) -> str:
    """Check the id of an exec as `check_id` does.

    `init` is refused, too: `<bundle>/init.pid` is the pid file of the container itself.
    """
    check_id(value, "exec id")
    if value == "init":
        raise InvalidArgument("exec id 'init' is reserved")
    return value

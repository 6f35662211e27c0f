"""Sessions, setsid(2): the processes that a terminal's shell started and that did not end."""

import os
import signal


def kill_session(sid: int) -> int:
    """Send SIGKILL to every process of a session; return the number of those that had not ended.

    A process may fork during the search: call again until the result is 0.
    """
    alive = 0
    for name in os.listdir("/proc"):
        if name.isdigit() and _kill_member(int(name), sid):
            alive += 1
    return alive


def _kill_member(pid: int, sid: int) -> bool:
    try:
        if os.getsid(pid) != sid or _is_zombie(pid):
            return False
        process = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        # The number may have been reused before the descriptor was opened.
        if os.getsid(pid) != sid:
            return False
        signal.pidfd_send_signal(process, signal.SIGKILL)
    except ProcessLookupError:
        return False
    finally:
        os.close(process)
    return True


def _is_zombie(pid: int) -> bool:
    with open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()[0] in (b"Z", b"X")

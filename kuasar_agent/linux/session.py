"""Sessions of processes, setsid(2): everything that a terminal's shell started and that stayed."""

import os
import signal


def kill_session(sid: int) -> int:
    """SIGKILL every process of session `sid`; how many there were that had not ended yet.

    A process may fork while the others are looked for: call again until there are none.
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
        # The descriptor may be of a later process of that number.
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

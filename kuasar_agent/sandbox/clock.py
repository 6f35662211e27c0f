"""The correction of the guest's clock.

The host first asks for the guest's time. When the clocks are more than 10 ms apart, it sends the
correction that it computed:

    ((ClientSendTime - ClientArriveTime) + (ServerArriveTime - ServerSendTime)) / 2

In these names the client is the host. A positive correction means that the guest is behind.
"""

from __future__ import annotations

import errno
import time

from kuasar_agent.errors import InvalidArgument, Unknown
from kuasar_agent.log import get_logger

log = get_logger(__name__)

_INT64_MAX = (1 << 63) - 1


def adjust(delta: int) -> None:
    """Move the clock by `delta` nanoseconds, forward or back.

    Raises:
        InvalidArgument: the kernel cannot represent the resulting time.
        Unknown: the kernel refuses.
    """
    target = time.clock_gettime_ns(time.CLOCK_REALTIME) + delta
    if not 0 <= target <= _INT64_MAX:
        raise InvalidArgument(f"clock out of range: moving it by {delta} ns")
    try:
        time.clock_settime_ns(time.CLOCK_REALTIME, target)
    except OSError as error:
        if error.errno == errno.EINVAL:
            raise InvalidArgument(f"clock out of range: moving it by {delta} ns") from None
        raise Unknown(f"setting the clock: {error.strerror}") from None
    log.info("clock moved", ns=delta)

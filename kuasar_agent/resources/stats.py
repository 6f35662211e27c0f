"""Resource usage of a container, as containerd's message for the cgroup version in use.

The files are read on the hub: they are the kernel's memory, and handing a read to a thread takes
longer than the read.
"""

from __future__ import annotations

from google.protobuf.any_pb2 import Any as AnyMessage

from kuasar_agent.containerd import pack
from kuasar_agent.linux import netdev
from kuasar_agent.linux.cgroup_files import Cgroup
from kuasar_agent.resources import stats_v1, stats_v2


def collect(cgroup: Cgroup) -> AnyMessage:
    """Return `io.containerd.cgroups.v1.Metrics` or `…v2.Metrics`; the network is the pod's."""
    version = stats_v1 if cgroup.version == 1 else stats_v2
    metrics = version.collect(cgroup, netdev.counters())
    return pack(metrics)

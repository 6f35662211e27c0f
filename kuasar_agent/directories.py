"""Directories of the guest whose paths hosts write into their requests and specs."""

SHARE = "/run/kuasar/state"  # contract: Kuasar's sandboxer
"""The directory shared by the host, with a bundle for each container."""

STORAGE = "/run/kuasar/storage"  # contract: Kuasar's sandboxer
"""Mount points of disks and memory; those of binds are below `SHARE`."""

NAMESPACES = "/run/sandbox-ns"  # contract: Kuasar's sandboxer
"""The namespaces of the pod: `ipc`, `uts`, `pid`."""

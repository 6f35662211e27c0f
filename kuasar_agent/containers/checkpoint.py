"""Options of a checkpoint, as flags of the runtime's `checkpoint` command.

https://github.com/opencontainers/runc/blob/main/man/runc-checkpoint.8.md
"""

from __future__ import annotations

from typing import NamedTuple


class Checkpoint(NamedTuple):
    """A Checkpoint request with its containerd.runc.v1.CheckpointOptions."""

    path: str
    """The directory of the guest into which criu writes the image."""
    exit: bool = False
    """The container ends with the checkpoint."""
    open_tcp: bool = False
    external_unix_sockets: bool = False
    terminal: bool = False
    file_locks: bool = False
    empty_namespaces: tuple[str, ...] = ()
    cgroups_mode: str = ""
    work_path: str = ""
    """The directory for criu's log; empty for one in the bundle."""
    parent_path: str = ""

    def flags(self, work_path: str) -> list[str]:
        """Return the flags; `work_path` is used where the request names none."""
        flags = ["--image-path", self.path, "--work-path", self.work_path or work_path]
        if self.parent_path:
            flags += ["--parent-path", self.parent_path]
        switches = {
            "--leave-running": not self.exit,
            "--tcp-established": self.open_tcp,
            "--ext-unix-sk": self.external_unix_sockets,
            "--shell-job": self.terminal,
            "--file-locks": self.file_locks,
        }
        flags += [flag for flag, wanted in switches.items() if wanted]
        if self.cgroups_mode:
            flags += ["--manage-cgroups-mode", self.cgroups_mode]
        for namespace in self.empty_namespaces:
            flags += ["--empty-ns", namespace]
        return flags

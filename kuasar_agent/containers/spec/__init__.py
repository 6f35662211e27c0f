"""Adapting a host's OCI specification to the guest: the only code that edits one.

A host writes a specification for its own kernel and its own runtime. The guest has another kernel,
fewer CPUs, no AppArmor profiles and an older runtime, and Kuasar's host writes fields that say
nothing (`"selinuxLabel": ""`) where containerd writes none. Each difference that matters is one
`Rule` of `rules.RULES`: data with a name, the fields, the reason, the source, and a function that
changes the fields and reports each change as a text.

    adapt_container   config.json of a container, before Create or Restore
    adapt_process     the Process of an Exec request, before the exec is started
    adapt_resources   the LinuxResources of an Update request

All three apply the same rules to the same fields; `Rule.on` says which of them a rule is for. The
rules see the guest as a `Guest` value. Changes are logged in one line for each
call, as a warning if the container gets less than its specification asks for.

A value of the wrong type is left as it is: the runtime, or the parser of an Update, refuses it.

Source: the OCI runtime specification 1.3, https://github.com/opencontainers/runtime-spec
The table of rules for users is in docs/pods.md, which a test compares with the rules.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kuasar_agent.containers.spec.guest import Guest, read_guest
from kuasar_agent.containers.spec.job import CREATE, EXEC, UPDATE, Job, Json, On
from kuasar_agent.containers.spec.rules import RULES
from kuasar_agent.log import get_logger

__all__ = ["Guest", "adapt_container", "adapt_process", "adapt_resources", "read_guest"]

log = get_logger(__name__)


def adapt_container(
    spec: Json, *, terminal: bool, guest: Guest | None = None, **names: Any
) -> Mapping[str, str] | None:
    """Change a container's specification in place.

    Return the kernel parameters taken out of it, which the caller writes in the guest's own
    namespaces, or None if nothing was changed. `names` identify the container in the log.

    Raises:
        InvalidArgument: a sysctl has a name that cannot be one.
    Blocks: a thread, for files on the share.
    """
    job = Job(guest or read_guest(), terminal=terminal)
    return job.sysctls if _apply(CREATE, spec, job, names) else None


def adapt_process(
    process: Json,
    *,
    terminal: bool,
    size: tuple[int, int] | None = None,
    guest: Guest | None = None,
    **names: Any,
) -> None:
    """Change an exec's process in place; `size` is its terminal's width and height, if known."""
    job = Job(guest or read_guest(), terminal=terminal, size=size)
    _apply(EXEC, {"process": process}, job, names)


def adapt_resources(resources: Json, *, guest: Guest | None = None, **names: Any) -> None:
    """Change new limits in place."""
    _apply(UPDATE, {"linux": {"resources": resources}}, Job(guest or read_guest()), names)


def _apply(on: On, spec: Json, job: Job, names: Mapping[str, Any]) -> bool:
    """Apply every rule for this kind of call; return whether one of them changed anything."""
    changes, loss = [], False
    for rule in RULES:
        if on in rule.on and (made := list(rule.change(spec, job))):
            changes += made
            loss = loss or rule.loss
    if changes:
        say = log.warning if loss else log.info
        say("spec changed", **names, changes="; ".join(changes))
    return bool(changes)

"""The arguments that name a guest: SANDBOX, --dir and --address."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from kuasar_host import sandboxes
from kuasar_host.address import GuestAddress
from kuasar_host.errors import HostError

_Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def guest_arguments(rest: str = "") -> _Decorator:
    """Add the arguments to a command, which gets a GuestAddress first.

    `rest` is the metavariable of the arguments after SANDBOX; the command gets those as `words`.
    SANDBOX is left out with --dir or --address.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def with_guest(
            directory: Path | None, address: str | None, words: tuple[str, ...], **options: Any
        ) -> Any:
            guest, words = _take_guest(directory, address, words)
            if rest:
                options["words"] = words
            elif words:
                raise HostError(f"unexpected argument {words[0]!r}")
            return command(guest, **options)

        by_directory = click.option(
            "--dir",
            "directory",
            type=click.Path(path_type=Path, file_okay=False),
            help="directory of `kuasar-debug boot`, or of a Cloud Hypervisor sandbox of Kuasar",
        )
        by_address = click.option(
            "--address",
            help="vsock://CID, hvsock:///DIR/task.vsock or unix:///DIR",
        )
        metavar = f"[SANDBOX] {rest}".rstrip()
        arguments = click.argument(
            "words", nargs=-1, metavar=metavar, type=click.UNPROCESSED, shell_complete=_complete
        )
        return by_directory(by_address(arguments(with_guest)))

    return decorate


def containers_of(directory: Path) -> list[str]:
    """Return the containers with a bundle in a sandbox's shared directory."""
    return sorted(path.parent.name for path in directory.glob("shared/*/config.json"))


def _take_guest(
    directory: Path | None, address: str | None, words: tuple[str, ...]
) -> tuple[GuestAddress, tuple[str, ...]]:
    if directory is not None and address is not None:
        raise HostError("give either --dir or --address")
    if address is not None:
        return GuestAddress(address), words
    if directory is not None:
        return GuestAddress.of_directory(directory), words
    if not words:
        raise HostError("name a sandbox: its id, or --dir or --address")
    sandbox, *rest = words
    return GuestAddress.of_directory(sandboxes.find(sandbox)), tuple(rest)


def _complete(
    context: click.Context, _: click.Parameter, incomplete: str
) -> Sequence[CompletionItem]:
    """Complete the sandbox, and after it the names of its containers."""
    words = context.params.get("words") or ()
    directory = context.params.get("directory")
    if context.params.get("address") is not None:
        return []
    try:
        if directory is None and words:
            directory = sandboxes.find(words[0])
    except HostError:
        return []
    names = sandboxes.ids() if directory is None else containers_of(directory)
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]

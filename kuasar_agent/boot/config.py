"""The agent's settings: one field of `TaskConfig` declares all there is to say about a setting.

From a field follow the kernel parameter `task.<field>` with its parser, the option of `kuasar-agent
serve`, and the row in docs/kernel-parameters.md (a test compares it). The keys `sharefs_type`,
`log_level`, `debug`, `enable_tracing` and `debug_shell` are those that Kuasar's hosts write; the
others are this agent's own.
"""

from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal, NamedTuple

from kuasar_agent.log import FORMATS, LEVELS

Parser = Callable[[str | None], object]
"""Returns the value of a text, which is None for a bare word. Raises ValueError."""


def _seconds(text: str | None) -> float:
    seconds = float(text or "none")
    if not 0 <= seconds <= 3600:
        raise ValueError("expected seconds, at most 3600")
    return seconds


def _absolute_path(text: str | None) -> str:
    if text is None or not text.startswith("/"):
        raise ValueError("expected an absolute path")
    return text


def _endpoint(text: str | None) -> str:
    scheme, separator, place = (text or "").partition("://")
    if not separator or scheme not in ("http", "vsock") or not place:
        raise ValueError("expected http://HOST:PORT or vsock://CID:PORT")
    return f"{scheme}://{place}"


class Setting:
    """The description of a setting, beside the type and the default of its field."""

    # Not a NamedTuple, which takes ten times as long to define while the guest starts.

    def __init__(
        self,
        meaning: str,
        form: str = "",
        parser: Parser | None = None,
        *,
        choices: tuple[str, ...] = (),
        guest_only: bool = False,
    ) -> None:
        """Take what the type does not tell.

        Args:
            form: the name of a value in texts for users; empty for a choice or a switch.
            parser: None for a choice or a switch.
            choices: the valid values of a `str`; those of a `Literal` are its own.
            guest_only: whether an agent that runs as an ordinary process has no use for it.
        """
        self.meaning = meaning
        self.form = form
        self.parser = parser
        self.choices = choices
        self.guest_only = guest_only


class TaskConfig(NamedTuple):
    """The settings, a field for each `task.<field>` of the kernel command line."""

    sharefs_type: Annotated[
        Literal["9p", "virtiofs"],
        Setting("file system of the directory shared by the host", guest_only=True),
    ] = "9p"
    log_level: Annotated[
        str, Setting("least severe level of the log's lines", choices=tuple(LEVELS))
    ] = "info"
    debug: Annotated[bool, Setting("serve the debug shell on vsock port 1025")] = False
    debug_shell: Annotated[str, Setting("program of the debug shell", "PATH", _absolute_path)] = (
        "/bin/bash"
    )
    enable_tracing: Annotated[
        bool, Setting("trace from the start; SIGUSR1 turns tracing on and off")
    ] = False
    trace_endpoint: Annotated[
        str,
        Setting(
            "receiver of traces by OTLP over HTTP: http://HOST:PORT or vsock://CID:PORT",
            "URL",
            _endpoint,
        ),
    ] = "vsock://2:4318"
    log_format: Annotated[str, Setting("form of the log's lines", choices=FORMATS)] = "logfmt"
    cgroup: Annotated[
        Literal["auto", "v1", "v2"],
        Setting("cgroup version; auto is v2 if it has all that containers need", guest_only=True),
    ] = "auto"
    runtime: Annotated[
        Literal["", "crun", "runc"],
        Setting("OCI runtime; without a value the first one that is found"),
    ] = ""
    events: Annotated[
        Literal["oom", "all"],
        Setting("events that GetEvents returns: OOM kills only, or every task event"),
    ] = "oom"
    vsock_peers: Annotated[
        Literal["host", "any"],
        Setting("peers that may connect: the host (CID 2), or any CID", guest_only=True),
    ] = "host"
    drain_grace: Annotated[
        float,
        Setting(
            "time for which a deletion waits for output that no reader takes, or that may follow",
            "SECONDS",
            _seconds,
        ),
    ] = 2.0

    def is_host_only(self) -> bool:
        """Return whether only the host may connect: containers share the guest's AF_VSOCK."""
        return self.vsock_peers == "host"


class Declared:
    """All that follows from a field of TaskConfig."""

    def __init__(self, name: str) -> None:
        annotation = TaskConfig.__annotations__[name]
        kind = annotation.__origin__
        self.name = name
        self.setting: Setting = annotation.__metadata__[0]
        self.default = TaskConfig._field_defaults[name]
        self.choices: tuple[str, ...] = self.setting.choices or getattr(kind, "__args__", ())
        self.is_switch = kind is bool

    def parse(self, text: str | None) -> object:
        """Return the value of a text, which is None for a bare word. Raises ValueError."""
        if self.setting.parser is not None:
            return self.setting.parser(text)
        return _switch(text) if self.is_switch else _one_of(self.choices, text)


def declarations() -> Iterator[Declared]:
    """Yield every setting in the order of declaration."""
    return map(Declared, TaskConfig._fields)


def parse_cmdline(text: str) -> tuple[TaskConfig, list[str]]:
    """Return the settings of the `task.` parameters, and a sentence for each invalid one.

    The last valid value of a key wins; unknown keys are ignored, since a newer host may set them.
    """
    values: dict[str, Any] = {}
    warnings = []
    for key, value in split_parameters(text):
        name = key.removeprefix("task.")
        if name == key or name not in TaskConfig._fields:
            continue
        try:
            values[name] = Declared(name).parse(value)
        except ValueError as error:
            given = key if value is None else f"{key}={value}"
            warnings.append(f"kernel parameter {given!r} ignored: {error}")
    return TaskConfig()._replace(**values), warnings


def split_parameters(text: str) -> Iterator[tuple[str, str | None]]:
    """Yield key and value of each parameter; the value of a bare word is None.

    Inside double quotes a space does not end the parameter. The quotes around a whole parameter or
    around its value are removed. Source: the kernel's next_arg() in lib/cmdline.c.
    """
    word, quoted = "", False
    for char in text + " ":
        if char == '"':
            quoted = not quoted
        if char.isspace() and not quoted:
            if word:
                yield _split_parameter(word)
            word = ""
        else:
            word += char
    if word:  # an unbalanced quote extends to the end
        yield _split_parameter(word.rstrip())


def _split_parameter(word: str) -> tuple[str, str | None]:
    if word.startswith('"'):
        word = word[1:].removesuffix('"')
    key, separator, value = word.partition("=")
    if not separator:
        return key, None
    if value.startswith('"'):
        value = value[1:].removesuffix('"')
    return key, value


_BOOLEANS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def _switch(text: str | None) -> bool:
    if text is None:
        return True
    try:
        return _BOOLEANS[text.lower()]
    except KeyError:
        raise ValueError("not a boolean") from None


def _one_of(choices: tuple[str, ...], text: str | None) -> str:
    if text is None or text.lower() not in choices:
        raise ValueError("expected one of " + ", ".join(repr(choice) for choice in choices))
    return text.lower()

"""One declaration of a setting: its documentation and its option follow from it."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from kuasar_agent import cli
from kuasar_agent.agent import Settings
from kuasar_agent.boot.config import Declared, TaskConfig, declarations

PAGE = Path(__file__).parents[2] / "docs/kernel-parameters.md"
SERVED = [each for each in declarations() if not each.setting.guest_only]


def option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def form(declared: Declared) -> str:
    """A parameter as a user writes it."""
    if declared.is_switch:
        return f"task.{declared.name}"
    values = "|".join(filter(None, declared.choices)) or declared.setting.form
    return f"task.{declared.name}={values}"


def default(declared: Declared) -> str:
    if declared.is_switch:
        return "on" if declared.default else "off"
    if not declared.default:
        return "none"
    value = declared.default
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def table() -> str:
    """The table of the documentation."""
    rows = ["| parameter | default | meaning | option |", "|---|---|---|---|"]
    for each in declarations():
        cells = (
            "`{}`".format(form(each).replace("|", "\\|")),
            default(each),
            each.setting.meaning,
            "" if each.setting.guest_only else f"`{option(each.name)}`",
        )
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(row.replace("|  |", "| |") for row in rows)


def test_the_documentation_has_every_setting() -> None:
    assert table() in PAGE.read_text(), f"put this table into {PAGE.name}:\n{table()}"


def test_serve_has_an_option_for_each_setting_that_it_can_serve() -> None:
    parameters = {parameter.name: parameter for parameter in cli.serve.params}
    for each in SERVED:
        parameter = parameters.pop(each.name)
        assert isinstance(parameter, click.Option)
        assert parameter.opts == [option(each.name)]
        assert parameter.help == each.setting.meaning
    assert parameters.keys() == {"state", "ports", "runtime_timeout", "namespaces"}


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Settings]:
    """The settings of the agents that `kuasar-agent serve` started."""
    found: list[Settings] = []

    class Stub:
        def __init__(self, settings: Settings) -> None:
            found.append(settings)

        def start(self) -> None: ...

        def run(self) -> None: ...

    monkeypatch.setattr(cli, "Agent", Stub)
    monkeypatch.setattr(cli, "set_child_subreaper", lambda: None)
    return found


def serve(tmp_path: Path, *options: str) -> tuple[int, str]:
    command = ["serve", "--state", str(tmp_path), "--ports", str(tmp_path), *options]
    result = CliRunner().invoke(cli.main, command)
    return result.exit_code, result.output


def test_an_agent_without_options_has_the_defaults(started: list[Settings], tmp_path: Path) -> None:
    assert serve(tmp_path)[0] == 0
    assert started[0].config == TaskConfig(vsock_peers="any")


def test_options_are_read_as_the_parameters_are(started: list[Settings], tmp_path: Path) -> None:
    options = [
        *("--debug", "--debug-shell", "/bin/sh", "--events", "all", "--runtime", "runc"),
        *("--drain-grace", "0.5", "--trace-endpoint", "http://h:1"),
    ]
    assert serve(tmp_path, *options) == (0, f"serving on unix://{tmp_path}/1024\n")
    assert started[0].config == TaskConfig(
        debug=True,
        debug_shell="/bin/sh",
        events="all",
        runtime="runc",
        drain_grace=0.5,
        trace_endpoint="http://h:1",
        vsock_peers="any",
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--drain-grace", "-1"], "expected seconds"),
        (["--debug-shell", "sh"], "expected an absolute path"),
        (["--trace-endpoint", "https://h:1"], "expected http://HOST:PORT"),
        (["--events", "some"], "'some' is not one of"),
    ],
)
def test_an_option_with_a_bad_value_is_refused(
    started: list[Settings], tmp_path: Path, options: list[str], words: str
) -> None:
    code, output = serve(tmp_path, *options)
    assert code == 2
    assert words in output
    assert not started

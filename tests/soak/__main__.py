"""`python -m tests.soak`: live through many containers and execs, then look for what is left."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import click

from tests.bench.table import show
from tests.soak.lives import Lives, judge
from tests.support.agent import running_agent


@click.command()
@click.option("--containers", default=2000, show_default=True)
@click.option("--execs", default=5000, show_default=True)
@click.option("--at-once", default=8, show_default=True, help="how many live at the same time")
@click.option("--runtime", type=click.Choice(["crun", "runc"]), default="crun", show_default=True)
def main(containers: int, execs: int, at_once: int, runtime: str) -> None:
    """Fails when an exit code is wrong, or anything of a container or an exec is left."""
    directory = Path(tempfile.mkdtemp(prefix="kuasar-soak-"))
    try:
        with running_agent(directory, runtime) as agent:
            lives = Lives(agent, at_once)
            # The first ones make the agent import and keep what it uses from then on.
            lives.containers(at_once * 4)
            lives.execs(at_once * 4)
            samples = [lives.sample("before")]
            for part in range(1, 5):
                lives.containers(containers // 4)
                samples.append(lives.sample(f"{part * containers // 4} containers"))
            for part in range(1, 5):
                lives.execs(execs // 4)
                samples.append(lives.sample(f"{part * execs // 4} execs"))
    finally:
        shutil.rmtree(directory)
    show(
        f"Soak with {runtime}, {at_once} at once; every exit code right",
        ["after", "s", "RSS KiB", "fds", "threads", "children", "mounts", "files in /run"],
        [list(map(str, sample)) for sample in samples],
    )
    judge(samples)


if __name__ == "__main__":
    main(prog_name="python -m tests.soak")

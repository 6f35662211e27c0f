"""The parts that look at the agent, without a guest or a container."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import LazyLoader, module_from_spec, spec_from_file_location
from pathlib import Path

import gevent
import gevent.event
import gevent.lock
import pytest
from gevent.socket import AF_UNIX, socket

from kuasar_agent.agent import Agent, Settings
from kuasar_agent.boot.config import TaskConfig
from kuasar_agent.containers.manager import Footprint
from kuasar_agent.observe.calls import BUCKETS, Calls
from kuasar_agent.observe.kernel import Mark, marks
from kuasar_agent.observe.leaks import Leak, Leaks
from kuasar_agent.observe.metrics import render
from kuasar_agent.observe.stall import StallWatch
from kuasar_agent.spans import span, trace_with, traced
from kuasar_agent.stdio.descriptors import ReadEnd
from kuasar_agent.ttrpc import Context, NotFound
from kuasar_host import timeline
from tests.support.boot_report import boot_report


def found(leaks: Leaks) -> list[Leak]:
    """What is reported, but for the greenlets that other tests in this process have left."""
    return [leak for leak in leaks.report() if leak.kind != "greenlet" or "Part" in leak.what]


@pytest.fixture
def agent(tmp_path: Path) -> Agent:
    """An agent that does not serve."""

    def listen(port: int) -> socket:
        listener = socket(AF_UNIX)
        listener.bind(str(tmp_path / str(port)))
        return listener

    return Agent(Settings(state=str(tmp_path), listen=listen, config=TaskConfig(vsock_peers="any")))


def test_a_descriptor_that_nothing_holds_is_a_leak(agent: Agent) -> None:
    leaks = Leaks(agent)
    lost = os.open(os.devnull, os.O_RDONLY)
    try:
        assert [leak[:2] for leak in found(leaks)] == [("fd", str(lost))]
    finally:
        os.close(lost)
    assert found(leaks) == []


def test_a_descriptor_that_a_part_of_the_agent_holds_is_none(agent: Agent) -> None:
    leaks = Leaks(agent)
    with socket(AF_UNIX) as held:
        vars(agent)["held"] = [held]
        assert found(leaks) == []
        del vars(agent)["held"]
        assert [leak.kind for leak in found(leaks)] == ["fd"]


def test_a_descriptor_that_an_owner_names_is_none(agent: Agent) -> None:
    leaks = Leaks(agent)
    reader, writer = os.pipe()
    vars(agent)["held"] = ReadEnd(reader)
    assert [leak[:2] for leak in found(leaks)] == [("fd", str(writer))]
    os.close(writer)
    vars(agent).pop("held").close()
    assert found(leaks) == []


def test_a_report_loads_no_module_that_loads_when_it_is_used(agent: Agent, tmp_path: Path) -> None:
    path = tmp_path / "late.py"
    path.write_text("raise AssertionError\n")
    spec = spec_from_file_location("late", path)
    assert spec is not None
    assert spec.loader is not None
    spec.loader = LazyLoader(spec.loader)
    vars(agent)["late"] = late = module_from_spec(spec)
    spec.loader.exec_module(late)
    assert found(Leaks(agent)) == []
    with pytest.raises(AssertionError):
        _ = late.anything


def test_a_channel_that_outlives_its_container_is_a_leak(agent: Agent) -> None:
    leaks = Leaks(agent)
    agent.containers.footprints += [Footprint("a", "/a", "/none"), Footprint("a-b", "/b", "/none")]
    channel = agent.channels.produce("a-b-stdout")
    agent.channels.input("a-exec-stdin")  # nobody has used it yet
    assert [leak[:2] for leak in found(leaks)] == [("stream", "a-b-stdout")]
    agent.channels.release_output("a-b-stdout", channel)
    assert found(leaks) == []


class Part:
    """Stands for an object of the agent; what is not the agent's own explains nothing."""

    def work(self, forever: gevent.event.Event) -> None:
        forever.wait()

    def report(self, leaks: Leaks) -> list[Leak]:
        return found(leaks)


Part.__module__ = "kuasar_agent.part"


def test_a_greenlet_is_explained_by_what_it_works_on(agent: Agent) -> None:
    leaks = Leaks(agent)
    part, forever = Part(), gevent.event.Event()
    worker = gevent.spawn(part.work, forever)
    gevent.sleep(0)
    (leak,) = found(leaks)
    assert leak[:2] == ("greenlet", "part.Part.work")
    vars(agent)["part"] = part
    assert found(leaks) == []
    del vars(agent)["part"]
    forever.set()
    worker.join()
    assert found(leaks) == []


def test_the_greenlet_that_makes_the_report_hides_no_other(agent: Agent) -> None:
    leaks, forever = Leaks(agent), gevent.event.Event()
    lost = gevent.spawn(Part().work, forever)
    vars(agent)["part"] = part = Part()
    gevent.sleep(0)
    (leak,) = gevent.spawn(part.report, leaks).get()
    assert leak[:2] == ("greenlet", "part.Part.work")
    forever.set()
    lost.join()


def test_a_zombie_that_was_missed_is_waited_for_by_the_report(agent: Agent) -> None:
    leaks = Leaks(agent)
    pid = os.posix_spawn("/bin/true", ["true"], {})
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert found(leaks) == []
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, 0)


def test_calls_are_counted_by_code_and_sorted_into_buckets() -> None:
    calls = Calls()
    context = Context("/s/M")

    def fail(*_: object) -> None:
        raise NotFound("x")

    assert calls(context, 1, lambda _, request: request + 1) == 2
    with pytest.raises(NotFound):
        calls(context, 1, fail)
    with pytest.raises(ZeroDivisionError):
        calls(context, 1, lambda *_: 1 / 0)
    assert calls.ended == {("/s/M", 0): 1, ("/s/M", 5): 1, ("/s/M", 2): 1}
    assert calls.running == 0
    latency = calls.latency["/s/M"]
    assert sum(latency.counts) == 3
    latency.add(BUCKETS[2])
    latency.add(BUCKETS[-1] + 1)
    assert (latency.counts[2], latency.counts[-1]) == (1, 1)


def test_a_page_of_metrics_is_prometheus_text(agent: Agent) -> None:
    calls = Calls()
    calls(Context('/s/"M\n'), None, lambda *_: None)
    text = render(agent, calls, StallWatch(), None)
    assert 'kuasar_agent_calls_total{method="/s/\\"M\\n",code="OK"} 1\n' in text
    families = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(families) == len(set(families))
    for line in text.splitlines():
        if not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            float(value)
            assert any(name.startswith(family) for family in families), line
    buckets = [line.rpartition(" ")[2] for line in text.splitlines() if "_bucket{" in line]
    assert buckets == sorted(buckets, key=int)
    assert buckets[-1] == "1"


BLOCKED = """
import threading, time
import gevent
from kuasar_agent.observe.stall import StallWatch

watch = StallWatch()
watch.start()

def hog():
    while not watch.stalls:
        time.sleep(0.01)

gevent.spawn(hog).join()
while watch.worst < 1:
    gevent.sleep(0.01)
watch.stop()
for thread in threading.enumerate():
    if thread.name == "stall-watch":
        thread.join()
print(watch.stalls)
"""


def test_a_greenlet_that_keeps_the_hub_is_named() -> None:
    command = [sys.executable, "-c", BLOCKED]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "1\n"
    blocked, again = done.stderr.splitlines()
    assert 'msg="the hub is blocked"' in blocked
    assert "hog" in blocked
    assert 'msg="the hub runs again"' in again


def test_marks_cost_nothing_until_somebody_traces() -> None:
    opened = []

    def begin(name: str) -> gevent.lock.BoundedSemaphore:
        opened.append(name)
        return gevent.lock.BoundedSemaphore()

    @traced("part")
    def part(value: int) -> int:
        with span("inner"):
            return value

    assert part(1) == 1
    trace_with(begin)
    try:
        assert part(2) == 2
    finally:
        trace_with(None)
    assert part(3) == 3
    assert opened == ["part", "inner"]


def test_the_kernels_log_gives_its_phases(tmp_path: Path) -> None:
    log = tmp_path / "kmsg"
    log.write_text("6,1,1500,-;Linux version 6.1\n")
    assert marks(str(log)) == [Mark(1.5, "Linux version 6.1")]
    log.write_text("not such a log\n")
    assert marks(str(log)) == []
    assert marks(str(tmp_path / "none")) == []


def test_a_start_up_is_laid_out_on_one_clock() -> None:
    bars = timeline.bars(boot_report(), 100)
    found = [(bar.name, bar.start, bar.length, bar.inner) for bar in bars]
    assert found == [
        ("QEMU and its firmware", 0, 100, False),
        ("kernel", 100, 1200, False),
        ("unpacking the initrd", 600, 400, True),
        ("Python's own start", 1300, 800, False),
        ("mounts", 2100, 20, False),
        ("imports", 2125, 400, False),
        ("import gevent", 2130, 300, True),
        ("serve", 2530, 10, False),
    ]


def test_a_boot_needs_a_place_or_a_picture_to_make() -> None:
    command = [sys.executable, "-m", "kuasar_debug", "boot"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr == "Error: give --dir, or --timeline to boot only for the picture\n"


def test_a_closed_socket_does_not_end_the_leak_report(agent: Agent) -> None:
    leaks = Leaks(agent)
    sock = socket(AF_UNIX)
    sock.close()
    vars(agent)["closed"] = sock
    assert found(leaks) == []

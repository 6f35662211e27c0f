"""The lock with two ways in."""

from __future__ import annotations

import gevent
from gevent.event import Event

from kuasar_agent.containers.shared_lock import SharedLock


class Visitor:
    """Somebody who stays inside until told to leave."""

    def __init__(self, lock: SharedLock, way: str) -> None:
        self.inside = False
        self.leave = Event()
        self._greenlet = gevent.spawn(self._visit, lock, way)
        gevent.sleep(0)

    def _visit(self, lock: SharedLock, way: str) -> None:
        with getattr(lock, way)():
            self.inside = True
            self.leave.wait()
        self.inside = False

    def end(self) -> None:
        self.leave.set()
        self._greenlet.get(timeout=10)
        gevent.sleep(0)


def test_many_are_inside_together() -> None:
    lock = SharedLock()
    visitors = [Visitor(lock, "shared") for _ in range(3)]
    assert inside(*visitors) == [True] * 3
    for visitor in visitors:
        visitor.end()


def inside(*visitors: Visitor) -> list[bool]:
    return [visitor.inside for visitor in visitors]


def test_one_is_inside_alone() -> None:
    lock = SharedLock()
    visitors = [Visitor(lock, way) for way in ("exclusive", "exclusive", "shared", "shared")]
    assert inside(*visitors) == [True, False, False, False]
    visitors[0].end()
    assert inside(*visitors) == [False, True, False, False]
    visitors[1].end()
    assert inside(*visitors) == [False, False, True, True]
    for visitor in visitors[2:]:
        visitor.end()


def test_who_waits_to_be_alone_is_not_overtaken() -> None:
    lock = SharedLock()
    guest = Visitor(lock, "shared")
    loner = Visitor(lock, "exclusive")
    late = Visitor(lock, "shared")
    assert inside(guest, loner, late) == [True, False, False]
    guest.end()
    assert inside(guest, loner, late) == [False, True, False]
    loner.end()
    assert inside(late) == [True]
    late.end()


def test_an_exception_inside_lets_the_next_ones_in() -> None:
    lock = SharedLock()
    for way in ("shared", "exclusive"):
        greenlet = gevent.spawn(_fail, lock, way)
        greenlet.join(10)
        assert isinstance(greenlet.exception, ZeroDivisionError)
    visitor = Visitor(lock, "exclusive")
    assert visitor.inside
    visitor.end()


def _fail(lock: SharedLock, way: str) -> None:
    with getattr(lock, way)():
        _ = 1 / 0

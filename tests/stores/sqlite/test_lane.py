"""The thread that does what it is given, in groups."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

from loom.stores.sqlite.lane import Lane
from loom.tasks import spawn

pytestmark = pytest.mark.anyio


class Scribe:
    """Writes down what it is given, when the gate is open."""

    pause: float | None = None

    def __init__(self, fault: Exception | None = None) -> None:
        self.fault = fault
        self.groups: list[list[int]] = []
        self.begun = threading.Event()
        self.gate = threading.Event()
        self.idled = threading.Event()
        self.closed = False

    def open(self) -> None:
        if self.fault:
            raise self.fault

    def perform(self, group: Sequence[int]) -> None:
        self.begun.set()
        assert self.gate.wait(10)
        self.groups.append(list(group))

    def idle(self) -> None:
        self.idled.set()
        self.pause = None

    def close(self) -> None:
        self.closed = True


async def test_what_is_submitted_while_a_group_is_under_way_is_the_next_group() -> None:
    """In order; closing does all that was submitted first."""
    scribe = Scribe()
    lane = Lane("test", scribe)
    await lane.open()
    lane.submit(0)
    assert await asyncio.to_thread(scribe.begun.wait, 10)
    for number in range(1, 6):
        lane.submit(number)
    closing = spawn(lane.aclose(), "close")
    scribe.gate.set()
    await closing
    assert scribe.groups == [[0], [1, 2, 3, 4, 5]]
    assert scribe.closed


async def test_what_fails_to_open_says_so() -> None:
    with pytest.raises(ZeroDivisionError):
        await Lane("test", Scribe(ZeroDivisionError())).open()


async def test_it_idles_when_it_is_woken_to_a_pause() -> None:
    """A thread that waits for ever learns that it has something to look at."""
    scribe = Scribe()
    lane: Lane[int] = Lane("test", scribe)
    await lane.open()
    scribe.pause = 0.001
    lane.wake()
    assert await asyncio.to_thread(scribe.idled.wait, 10)
    await lane.aclose()
    assert scribe.groups == []


def test_a_loop_that_is_gone_is_told_nothing() -> None:
    """Its thread ends all the same."""
    scribe = Scribe()
    lane: Lane[int] = Lane("test", scribe)
    asyncio.run(lane.open())
    lane.submit(1)
    assert scribe.begun.wait(10)
    scribe.gate.set()
    lane.post(pytest.fail, "nobody is there")


async def test_opening_may_be_cancelled() -> None:
    """The thread then closes what it opened."""
    scribe = Scribe()
    lane: Lane[int] = Lane("test", scribe)
    opening = spawn(lane.open(), "open")
    await asyncio.sleep(0)
    opening.cancel()
    await asyncio.wait([opening])
    assert opening.cancelled()
    await lane.aclose()
    assert scribe.closed

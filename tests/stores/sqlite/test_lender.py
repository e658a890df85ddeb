"""A busy loop pauses for the threads that work for it; an idle or a well served one does not."""

from __future__ import annotations

import asyncio
import time

import pytest

from loom.stores.sqlite import lender
from loom.stores.sqlite.lender import LEND, LEND_AFTER, Lender
from loom.tasks import cancel_and_wait, spawn

pytestmark = pytest.mark.anyio


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Each pause that was made."""
    made: list[float] = []

    class Time:
        monotonic = staticmethod(time.monotonic)
        thread_time = staticmethod(time.thread_time)
        sleep = staticmethod(made.append)

    monkeypatch.setattr(lender, "time", Time)
    return made


async def work(seconds: float) -> None:
    """Keep the loop busy, in short turns."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        sum(range(1000))
        await asyncio.sleep(0)


async def test_a_busy_loop_pauses_while_a_call_waits(pauses: list[float]) -> None:
    """Until the call has its outcome."""
    lent = Lender()
    lent.begin()
    await work(LEND_AFTER * 8)
    assert pauses
    assert set(pauses) == {LEND}
    lent.end(1)
    pauses.clear()
    await work(LEND_AFTER * 4)
    assert pauses == []


async def test_a_busy_loop_that_is_served_does_not_pause(pauses: list[float]) -> None:
    """Outcomes come, though others wait already."""
    lent = Lender()

    async def serve() -> None:
        while True:
            lent.begin()
            lent.end(1)
            await asyncio.sleep(0)

    lent.begin()
    serving = spawn(serve(), "serve")
    await work(LEND_AFTER * 8)
    await cancel_and_wait(serving)
    assert pauses == []
    lent.end(1)


async def test_an_idle_loop_does_not_pause(pauses: list[float]) -> None:
    """The threads have the lock while it waits."""
    lent = Lender()
    lent.begin()
    await asyncio.sleep(LEND_AFTER * 8)
    assert pauses == []
    lent.end(1)

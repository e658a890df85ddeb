"""The slots of a worker, without one: who gets them, in which order, and what is given back."""

from __future__ import annotations

import asyncio

import pytest

from loom.engine.run.slots import Slot, Slots
from loom.model import limits
from loom.tasks import TaskSet, cancel_and_wait, spawn
from tests.engine.kit import turns

pytestmark = pytest.mark.anyio


async def begun(slots: Slots, actor: str = "actor") -> Slot:
    await slots.reserve()
    return slots.begin(actor)


class Run:
    """A producer's task, which waits until it is told to go on, and then works until it is told to end."""

    def __init__(self, slot: Slot) -> None:
        self.slot = slot
        self.wake, self.end = asyncio.Event(), asyncio.Event()
        self.works = False
        self.task = spawn(self._run(), "run")
        slot.begin(self.task)

    async def _run(self) -> None:
        await self.slot.wait(self.wake.wait())
        self.works = True
        await self.end.wait()
        self.slot.release()


async def test_there_are_so_many() -> None:
    slots = Slots(2)
    first = await begun(slots)
    await begun(slots)
    reserving = spawn(slots.reserve(), "reserve")
    await turns()
    assert not reserving.done()
    first.release()
    await reserving
    slots.cancel()
    slots.cancel()
    await begun(slots)


async def test_a_run_that_waits_gives_its_slot_to_the_next() -> None:
    slots = Slots(1)
    waiting = Run(await begun(slots))
    other = await begun(slots)
    assert slots.waiting == 1
    waiting.wake.set()
    await turns()
    assert not waiting.works
    other.release()
    await turns()
    assert waiting.works
    assert slots.waiting == 0
    waiting.end.set()
    await waiting.task
    await begun(slots)


async def test_runs_that_go_on_come_before_claims_and_in_their_order() -> None:
    slots = Slots(1)
    first, second = Run(await begun(slots)), Run(await begun(slots))
    other = await begun(slots)
    claiming = spawn(slots.reserve(), "claim")
    second.wake.set()
    await turns()
    first.wake.set()
    await turns()
    other.release()
    await turns()
    assert (second.works, first.works, claiming.done()) == (True, False, False)
    second.end.set()
    await turns()
    assert (first.works, claiming.done()) == (True, False)
    first.end.set()
    await claiming


async def test_a_run_that_goes_on_asks_for_the_slot_with_which_a_claim_waits() -> None:
    slots = Slots(1)
    run = Run(await begun(slots))
    await slots.reserve()
    assert not slots.changed.is_set()
    run.wake.set()
    await turns()
    assert slots.changed.is_set()
    slots.cancel()
    await turns()
    assert run.works
    run.end.set()
    await run.task


async def test_an_actor_s_slots_are_given_back_too() -> None:
    slots = Slots(10, {"few": 1}.get)
    first = Run(await begun(slots, "few"))
    assert slots.is_full("few")
    await turns()
    assert not slots.full
    second = await begun(slots, "few")
    assert slots.full == ("few",)
    slots.changed.clear()
    first.wake.set()
    await turns()
    assert not first.works
    second.release()
    assert slots.changed.is_set()
    await turns()
    assert first.works
    assert slots.is_full("few")
    first.end.set()
    await first.task
    assert not slots.is_full("few")


async def test_a_full_actor_holds_up_no_other() -> None:
    slots = Slots(2, {"few": 1}.get)
    few, many = Run(await begun(slots, "few")), Run(await begun(slots, "many"))
    await turns()
    others = await begun(slots, "few"), await begun(slots, "x")
    few.wake.set()
    await turns()
    many.wake.set()
    await turns()
    others[1].release()
    await turns()
    assert (few.works, many.works) == (False, True)
    others[0].release()
    await turns()
    assert few.works
    for run in (few, many):
        run.end.set()
        await run.task


async def test_one_that_is_stopped_goes_on_at_once() -> None:
    slots = Slots(1)
    run = Run(await begun(slots))
    other = await begun(slots)
    run.wake.set()
    await turns()
    run.slot.stop()
    await turns()
    assert run.works
    other.release()
    claiming = spawn(slots.reserve(), "claim")
    await turns()
    assert not claiming.done(), "the one that was stopped still has its slot"
    run.end.set()
    await claiming


async def test_one_that_is_cancelled_goes_on_when_it_has_its_slot() -> None:
    """As by `asyncio.timeout` around the wait."""
    slots = Slots(1)
    run = Run(await begun(slots))
    other = await begun(slots)
    run.task.cancel()
    await turns()
    run.task.cancel()
    await turns()
    assert not run.task.done()
    other.release()
    await asyncio.wait({run.task})
    assert run.task.cancelled()
    assert slots.waiting == 0
    run.slot.release()
    await begun(slots)


async def test_what_does_not_block_gives_nothing_back(monkeypatch: pytest.MonkeyPatch) -> None:
    slot = await begun(Slots(1))

    async def work() -> None:
        await slot.sleep(0)
        await slot.sleep(-1)

    task = spawn(work(), "run")
    slot.begin(task)
    monkeypatch.setattr(Slots, "give_back", lambda *args: pytest.fail("it was given back"))
    await task


async def test_a_task_that_only_listens_keeps_the_slot() -> None:
    slots = Slots(1)
    slot = await begun(slots)
    slot.begin(spawn(turns(), "run"))
    heard = asyncio.Event()
    listening = spawn(slot.wait(heard.wait()), "listen")
    await turns()
    assert slots.waiting == 0
    heard.set()
    assert await listening


async def test_a_run_that_waits_for_several_at_once_goes_on_with_each() -> None:
    """It waits again as soon as the task that went on has ended."""
    slots = Slots(1)
    slot = await begun(slots)
    events = [asyncio.Event() for _ in range(3)]
    works: list[int] = []
    work = asyncio.Semaphore(0)

    async def each(n: int) -> None:
        await slot.wait_for_run(events[n].wait())
        works.append(n)
        await work.acquire()

    async def main() -> None:
        await asyncio.gather(*(each(n) for n in range(3)))

    task = spawn(main(), "run")
    slot.begin(task)
    await turns()
    assert slots.waiting == 1
    other = await begun(slots)
    events[1].set()
    await turns()
    assert works == []
    other.release()
    await turns()
    assert (works, slots.waiting) == ([1], 0)
    work.release()
    await turns()
    assert slots.waiting == 1, "its other two still wait"
    for n in (0, 2):
        events[n].set()
    work.release()
    work.release()
    await task
    assert sorted(works) == [0, 1, 2]
    slot.release()
    assert slots.waiting == 0
    await begun(slots)


async def test_those_that_go_on_at_once_share_one_wait() -> None:
    slots = Slots(1)
    slot = await begun(slots)
    event = asyncio.Event()

    async def main() -> None:
        await asyncio.gather(*(slot.wait_for_run(event.wait()) for _ in range(3)))

    task = spawn(main(), "run")
    slot.begin(task)
    await turns()
    other = await begun(slots)
    event.set()
    await turns()
    assert not task.done()
    other.release()
    await task
    slot.release()


async def test_what_is_left_of_an_attempt_takes_nothing_from_the_next() -> None:
    """A task that its producer left behind waits on."""
    slots = Slots(1)
    slot = await begun(slots)
    never = asyncio.Event()
    slot.begin(spawn(turns(), "run"))
    left = spawn(slot.wait_for_run(never.wait()), "left")
    await turns()
    assert slots.waiting == 1
    slot.settle()
    assert slots.waiting == 0
    slot.begin(spawn(turns(), "run"))
    never.set()
    await left
    await turns()
    assert slots.waiting == 0
    slot.release()


async def test_with_many_that_wait_no_more_of_their_actors_are_claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "WAITING", 2)
    slots = Slots(10)
    runs = [Run(await begun(slots, "patient")) for _ in range(2)]
    await turns()
    assert "patient" in slots.full
    slots.changed.clear()
    runs[0].wake.set()
    await turns()
    assert not slots.full
    assert slots.changed.is_set()
    for run in runs:
        run.wake.set()
        run.end.set()
        await run.task


async def test_a_thread_s_place_is_given_back_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loom.engine.run.slots.THREADS", 1)
    slots = Slots(2)
    first, second = await begun(slots), await begun(slots)
    async with TaskSet() as tasks:
        wake = asyncio.Event()
        async with first.thread:
            call = tasks.spawn(first.wait(wake.wait()), "call")
            first.begin(call)
            await turns()
            async with second.thread:
                wake.set()
                await turns()
                assert not call.done()
            await call
            waiting = tasks.spawn(second.thread.__aenter__(), "thread")
            await turns()
            assert not waiting.done()
        await waiting


@pytest.mark.parametrize("stopped", [False, True])
async def test_one_that_waits_for_its_thread_can_be_stopped(monkeypatch: pytest.MonkeyPatch, stopped: bool) -> None:
    monkeypatch.setattr("loom.engine.run.slots.THREADS", 1)
    slots = Slots(2)
    first, second = await begun(slots), await begun(slots)
    wake = asyncio.Event()
    await first.thread.__aenter__()
    call = spawn(first.wait(wake.wait()), "call")
    first.begin(call)
    await turns()
    await second.thread.__aenter__()
    wake.set()
    await turns()
    if stopped:
        first.stop()
        await call
    else:
        second.thread.release()
        await call
        assert slots.threads.locked()
        await second.thread.__aexit__()
    first.thread.release()
    second.thread.release()
    await cancel_and_wait(call)
    assert not slots.threads.locked()

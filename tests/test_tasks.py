"""Tasks: owned, cancelled once, waited for."""

from __future__ import annotations

import asyncio

import pytest

from loom.tasks import TaskSet, abandon, cancel_and_wait, spawn, wait_out, wind_up

from .waits import turns, until

pytestmark = pytest.mark.anyio


class Cleaner:
    """A task that needs its time to clean up, and notes how often it was disturbed."""

    def __init__(self) -> None:
        self.cancelled = 0
        self.finish = asyncio.Event()
        self.task = spawn(self._run(), "cleaner")

    async def _run(self) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            while not self.finish.is_set():
                try:
                    self.cancelled += 1
                    await self.finish.wait()
                except asyncio.CancelledError:
                    continue


async def test_a_spawned_task_has_its_name() -> None:
    async def work() -> str:
        task = asyncio.current_task()
        assert task is not None
        return task.get_name()

    assert await spawn(work(), "loom-x") == "loom-x"


async def test_cancel_and_wait_waits_until_the_task_is_gone() -> None:
    cleaner = Cleaner()
    await turns()
    stopping = spawn(cancel_and_wait(cleaner.task), "stopping")
    await turns()
    assert not stopping.done()
    cleaner.finish.set()
    await stopping
    assert cleaner.task.done()


async def test_who_waits_and_is_cancelled_does_not_disturb_the_clean_up_nor_leave_it() -> None:
    cleaner = Cleaner()
    await turns()
    stopping = spawn(cancel_and_wait(cleaner.task), "stopping")
    await turns()
    for _ in range(3):
        stopping.cancel()
        await turns()
    assert not stopping.done()
    assert cleaner.cancelled == 1
    cleaner.finish.set()
    await asyncio.wait({stopping})
    assert stopping.cancelled()
    assert cleaner.task.done()


async def test_outcomes_of_cancelled_tasks_are_dropped() -> None:
    async def fail() -> None:
        raise ValueError

    failed, running = spawn(fail(), "fail"), spawn(asyncio.sleep(60), "sleep")
    await cancel_and_wait(failed, running)
    assert failed.done()
    assert running.cancelled()


async def test_nothing_to_cancel_is_nothing_to_wait_for() -> None:
    await cancel_and_wait()


async def test_wait_out_gives_up_after_its_timeout() -> None:
    cleaner = Cleaner()
    await turns()
    cleaner.task.cancel()
    await wait_out(cleaner.task, timeout=0.01)
    assert not cleaner.task.done()
    cleaner.finish.set()
    await asyncio.wait({cleaner.task})


async def test_a_set_forgets_tasks_that_ended() -> None:
    tasks = TaskSet()
    task = tasks.spawn(asyncio.sleep(0), "short")
    assert len(tasks) == 1
    await task
    await until(lambda: not len(tasks))


async def test_leaving_a_set_cancels_what_still_runs() -> None:
    async with TaskSet() as tasks:
        task = tasks.spawn(asyncio.sleep(60), "long")
        await turns()
    assert task.cancelled()


async def test_wait_all_lets_them_end_and_is_bounded() -> None:
    async with TaskSet() as tasks:
        gate = asyncio.Event()
        task = tasks.spawn(gate.wait(), "waits")
        await tasks.wait_all(0.01)
        assert not task.done()
        gate.set()
        await tasks.wait_all()
        assert task.result() is True
        await tasks.wait_all()


def test_winding_up_ends_what_ends_and_leaves_the_rest_behind() -> None:
    ended, deaf = [], []

    async def ends() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append(1)

    async def never_ends() -> None:
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                deaf.append(1)

    async def main() -> list[asyncio.Task[None]]:
        tasks = [spawn(ends(), "ends"), spawn(never_ends(), "deaf")]
        await turns(1)
        return tasks

    with asyncio.Runner() as runner:
        tasks = runner.run(main())
        runner.run(wind_up(0.01))
        assert [task.done() for task in tasks] == [True, False]
    assert (ended, deaf) == ([1], [1])


def test_a_loop_is_closed_without_what_was_abandoned() -> None:
    async def main() -> None:
        cleaner = Cleaner()
        await turns(1)
        cleaner.task.cancel()
        await turns(1)
        abandon(cleaner.task)
        assert cleaner.task not in asyncio.all_tasks()

    asyncio.run(main())

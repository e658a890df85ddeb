"""Processes on one loop: stopped, they do nothing; killed, they clean up nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from loom.testing.simulation.loop import Process, SimulationLoop


def run(main: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=SimulationLoop) as runner:
        runner.run(main)


def loop() -> SimulationLoop:
    running = asyncio.get_running_loop()
    assert isinstance(running, SimulationLoop)
    return running


async def tick(said: list[float]) -> None:
    try:
        while True:
            await asyncio.sleep(1)
            said.append(loop().time())
    finally:
        said.append(-1)


async def end(process: Process) -> None:
    process.bury()
    for task in loop().tasks_of(process):
        task.cancel()
    await asyncio.sleep(1)
    assert loop().tasks_of(process) == []


def test_a_stopped_process_does_nothing_and_then_all_that_was_due() -> None:
    async def main() -> None:
        process, said = Process(loop(), "p"), list[float]()
        began = loop().time()
        process.spawn(tick(said), "ticks")
        await asyncio.sleep(2.5)
        process.stop()
        await asyncio.sleep(10)
        assert [at - began for at in said] == [1, 2]
        process.go_on()
        await asyncio.sleep(1.5)
        assert [at - began for at in said] == [1, 2, 12.5, 13.5]
        await end(process)

    run(main())


def test_a_timer_that_was_cancelled_meanwhile_stays_cancelled() -> None:
    async def main() -> None:
        process, fired = Process(loop(), "p"), list[int]()
        timer = process.context.run(loop().call_later, 1, fired.append, 1)
        process.stop()
        await asyncio.sleep(2)
        timer.cancel()
        process.go_on()
        await asyncio.sleep(2)
        assert fired == []

    run(main())


def test_a_killed_process_runs_no_finally_before_it_is_buried() -> None:
    async def main() -> None:
        process, said = Process(loop(), "p"), list[float]()
        process.spawn(tick(said), "ticks")
        await asyncio.sleep(1.5)
        process.kill()
        process.go_on()  # as SIGCONT to one that is gone
        await asyncio.sleep(10)
        assert len(said) == 1
        await end(process)
        assert said[-1] == -1

    run(main())


def test_fate_strikes_at_the_turn_that_was_named() -> None:
    async def main() -> None:
        process, said = Process(loop(), "p"), list[float]()
        process.spawn(tick(said), "ticks")
        await asyncio.sleep(0)
        process.meet(process.kill, turns=5)
        await asyncio.sleep(20)
        assert 1 <= len(said) < 5
        await end(process)

    run(main())


def test_what_a_task_makes_belongs_to_its_process() -> None:
    async def main() -> None:
        process, said = Process(loop(), "p"), list[float]()

        async def parent() -> None:
            child = asyncio.ensure_future(tick(said))
            await child

        process.spawn(parent(), "parent")
        await asyncio.sleep(1.5)
        assert len(loop().tasks_of(process)) == 2
        process.stop()
        await asyncio.sleep(5)
        assert len(said) == 1
        await end(process)

    run(main())

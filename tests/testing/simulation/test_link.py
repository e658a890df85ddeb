"""The faulty link: a call that it refuses has not happened, one whose reply it loses has."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from loom.model.errors import LogNotFound, OutcomeUnknown, Unavailable
from loom.model.ports import Notice
from loom.model.run import Meta
from loom.stores.memory import MemoryStore
from loom.testing.simulation import Faults
from loom.testing.simulation.history import Call, Logged
from loom.testing.simulation.link import Link
from loom.testing.simulation.loop import Process, SimulationLoop
from loom.testing.simulation.world import World

META = Meta(run="run", actor="actor")


def play(faults: Faults, scene: Callable[[World, Process, Link], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimulationLoop)
        world = World(loop, MemoryStore(clock=loop.time), faults, seed=1)
        process = Process(loop, "p")
        link = Link(world, process)
        await process.spawn(scene(world, process, link), "scene")
        await link.aclose()

    with asyncio.Runner(loop_factory=SimulationLoop) as runner:
        runner.run(main())


CALM = Faults.none()


def test_a_call_passes_and_is_written_down() -> None:
    async def scene(world: World, process: Process, link: Link) -> None:
        assert (await link.store.runs.create(META)).meta == META
        with pytest.raises(LogNotFound):
            await link.store.runs.get("another")
        assert [call.name for call in world.history if isinstance(call, Call)] == ["create", "get"]
        assert not link.store.logs.append_nowait("run", None)  # type: ignore[arg-type]
        assert link.store.durability == "memory"

    play(CALM, scene)


def test_a_refused_call_has_not_happened() -> None:
    async def scene(world: World, process: Process, link: Link) -> None:
        with pytest.raises(Unavailable):
            await link.store.runs.create(META)
        with pytest.raises(LogNotFound):
            await world.store.runs.get("run")

    play(Faults(refused=1), scene)


def test_a_call_whose_reply_is_lost_has_happened() -> None:
    async def scene(world: World, process: Process, link: Link) -> None:
        with pytest.raises(OutcomeUnknown):
            await link.store.runs.create(META)
        with pytest.raises(Unavailable):
            await link.store.runs.get("run")
        assert (await world.store.runs.get("run")).meta == META

    play(Faults(refused=0, lost_reply=1), scene)


def test_while_it_is_cut_nothing_comes_through_and_then_all_are_told_to_look() -> None:
    async def scene(world: World, process: Process, link: Link) -> None:
        told: list[Notice] = []
        unwatch = link.store.logs.watch("run", told.append)
        link.cut()
        await world.store.runs.create(META)
        with pytest.raises(Unavailable):
            await link.store.runs.get("run")
        await asyncio.sleep(60)
        assert told == []
        link.heal()
        await asyncio.sleep(10)
        assert set(told) == {Notice(), Notice(marks=True)}
        unwatch()
        await world.store.runs.drop("run")
        await asyncio.sleep(10)
        assert len(told) == 2

    play(CALM, scene)


def test_a_lost_notice_is_told_by_the_next_poll() -> None:
    async def scene(world: World, process: Process, link: Link) -> None:
        told: list[Notice] = []
        link.store.logs.watch("run", told.append)
        await world.store.runs.create(META)
        await asyncio.sleep(world.faults.poll + 1)
        assert told == [Notice()]

    play(Faults(lost_notice=1), scene)


def test_a_watcher_that_raises_is_written_down() -> None:
    async def scene(world: World, process: Process, link: Link) -> None:
        def notify(notice: Notice) -> None:
            raise ValueError

        link.store.logs.watch("run", notify)
        await world.store.runs.create(META)
        await asyncio.sleep(10)
        assert any(isinstance(one, Logged) for one in world.history)

    play(CALM, scene)


def test_a_wait_in_the_store_ends_with_who_waits() -> None:
    async def scene(world: World, process: Process, link: Link) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3):
                await link.store.queue.claim(["default"], "w", lease=10, wait=60)
        await world.store.queue.put(META)
        claim = await world.store.queue.claim(["default"], "other", lease=10, wait=0)
        assert claim is not None

    play(CALM, scene)

"""Viewers of one run, together: whoever joins, lags, leaves or is cut, each sees every chunk once, in order."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from loom.model.chunk import Chunk
from loom.model.cursor import Cursor
from loom.model.errors import CursorExpired
from loom.server.app import Times
from loom.server.stream.audience import SEND_BYTES
from loom.wire.json import decode
from loom.wire.sse import FAULT, Event
from tests.server.harness import PATIENCE, Rig, Viewer, rig
from tests.waits import until

pytestmark = pytest.mark.anyio


def data(value: Any) -> Chunk[Any]:
    return Chunk("data", value, time=1.0)


def tasks(name: str) -> list[asyncio.Task[Any]]:
    return [task for task in asyncio.all_tasks() if task.get_name().startswith(name)]


async def members_only(run: str = "r") -> None:
    """Until no viewer of the run follows it alone."""
    await until(lambda: not tasks(f"loom-viewer {run}"), seconds=PATIENCE)


async def gather(r: Rig, viewers: list[Viewer]) -> None:
    """Make members of them: the first was alone until something is said in company."""
    for viewer in viewers:
        await viewer.event()
    await r.say("r", data("together"))
    for viewer in viewers:
        await viewer.event()
    await members_only()


def seqs(events: list[Event]) -> list[int]:
    return [Cursor.parse(event.id).seq for event in events]


async def test_members_share_one_follower() -> None:
    async with rig() as r:
        await r.begin()
        async with (
            r.viewer("/runs/r/events") as one,
            r.viewer("/runs/r/events") as two,
            r.viewer("/runs/r/events") as three,
        ):
            await gather(r, [one, two, three])
            assert (r.transport.following, len(tasks("loom-audience"))) == (1, 1)
            for index in range(20):
                await r.say("r", data(index))
                for viewer in (one, two, three):
                    assert decode((await viewer.event()).data)["data"] == index
            await r.end()
            for viewer in (one, two, three):
                assert [event.type for event in await viewer.rest()] == ["complete"]
        assert tasks("loom-audience") == []


async def test_one_viewer_has_no_audience() -> None:
    async with rig() as r:
        await r.begin()
        async with r.viewer("/runs/r/events") as one:
            await one.event()
            await r.say("r", data(1))
            await one.event()
            assert len(tasks("loom-viewer")) == 1
            assert tasks("loom-audience") == []


async def test_the_last_member_closes_the_follower() -> None:
    async with rig() as r:
        await r.begin()
        async with r.viewer("/runs/r/events") as one:
            async with r.viewer("/runs/r/events") as two:
                await gather(r, [one, two])
            one.writer.close()
            await until(lambda: not (r.transport.following or r.app.viewers), seconds=PATIENCE)


async def test_a_viewer_with_other_wishes_has_another_audience() -> None:
    async with rig() as r:
        await r.begin()
        async with r.viewer("/runs/r/events") as named, r.viewer("/runs/r/events?named=0") as plain:
            await named.event(), await plain.event()
            await r.say("r", data(1))
            assert ((await named.event()).type, (await plain.event()).type) == ("data", "message")


async def test_a_slow_member_holds_up_nobody_and_loses_nothing() -> None:
    async with rig() as r:
        await r.begin()
        async with (
            r.viewer("/runs/r/events", receive_buffer=4096) as slow,
            r.viewer("/runs/r/events") as one,
            r.viewer("/runs/r/events") as two,
        ):
            await gather(r, [slow, one, two])
            for index in range(400):
                await r.say("r", data("x" * 30_000))
                for viewer in (one, two):
                    assert (await viewer.event()).type == "data", index
            assert len(tasks("loom-viewer")) == 1, "the slow one follows alone"
            await r.end()
            assert seqs(await slow.rest()) == list(range(3, 404))


async def test_a_page_too_large_for_one_send_goes_to_each_in_parts() -> None:
    async with rig() as r:
        await r.begin()
        async with r.viewer("/runs/r/events") as one, r.viewer("/runs/r/events") as two:
            await gather(r, [one, two])
            await r.say("r", *(data("x" * 1000) for _ in range(200)))
            for viewer in (one, two):
                events: list[Event] = []
                while len(events) < 200:
                    piece = await viewer.piece()
                    assert len(piece) <= SEND_BYTES
                    events += viewer.decoder.feed(piece)
            await r.say("r", data("again"))
            for viewer in (one, two):
                assert decode((await viewer.event()).data)["data"] == "again"


async def test_members_get_heartbeats() -> None:
    async with rig(times=Times(heartbeat=0.1)) as r:
        await r.begin()
        async with r.viewer("/runs/r/events") as one, r.viewer("/runs/r/events") as two:
            await gather(r, [one, two])
            for viewer in (one, two):
                assert await viewer.piece() == b":\n\n"


async def test_a_fault_reaches_each_member() -> None:
    async with rig() as r:
        await r.begin()
        async with r.viewer("/runs/r/events") as one, r.viewer("/runs/r/events") as two:
            await gather(r, [one, two])
            r.transport.trouble["follow"] = CursorExpired("gone")
            await r.say("r", data(1))
            for viewer in (one, two):
                assert [event.type for event in await viewer.rest()] == [FAULT]


async def test_stopping_ends_members_in_order() -> None:
    async with rig() as r:
        await r.begin()
        async with r.viewer("/runs/r/events") as one, r.viewer("/runs/r/events") as two:
            await gather(r, [one, two])
            r.app.end_streams()
            for viewer in (one, two):
                assert await viewer.rest() == []
                assert viewer.ended


@pytest.mark.parametrize("seed", range(5))
async def test_whoever_comes_and_goes_sees_every_chunk_once(seed: int) -> None:
    chance = random.Random(seed)
    total = 300
    async with rig() as r:
        await r.begin()

        async def speak() -> None:
            said = 1
            while said < total:
                count = min(chance.choice([1, 1, 1, 2, 5, 40]), total - said)
                await r.say("r", *(data("x" * chance.choice([5, 50, 5000])) for _ in range(count)))
                said += count
                for _ in range(chance.randrange(4)):
                    await asyncio.sleep(0)
            await r.end()

        async def view(kind: random.Random) -> None:
            """Watch, leaving and resuming at random, some of the time slowly."""
            seen: list[int] = []
            last = ""
            while not seen or seen[-1] <= total:
                for _ in range(kind.randrange(30)):
                    await asyncio.sleep(0)
                options: dict[str, Any] = {"headers": {"Last-Event-ID": last}} if last else {}
                async with r.viewer("/runs/r/events", **options) as viewer:
                    for _ in range(kind.choice([3, 50, 1000])):
                        event = await viewer.event()
                        seen += seqs([event])
                        last = event.id
                        if event.type == "complete":
                            break
            assert seen == list(range(1, total + 2))

        async with asyncio.timeout(2 * PATIENCE):
            await asyncio.gather(speak(), *(view(random.Random(f"{seed} {index}")) for index in range(12)))

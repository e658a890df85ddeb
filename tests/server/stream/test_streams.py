"""What lasting connections share: their end, their audiences, and the owner that lives as long as they do."""

from __future__ import annotations

import asyncio

import pytest

from loom.model.cursor import Cursor
from loom.model.errors import Unavailable
from loom.model.run import Meta
from loom.server.stream.audience import FrameWriter, Key
from loom.server.stream.streams import STOP_LOOK, Streams, Times, renew
from loom.stores.memory import MemoryStore
from loom.tasks import TaskSet, spawn
from loom.wire.sse import Framer
from tests.server.harness import WatchedTransport

pytestmark = pytest.mark.anyio


@pytest.fixture
def streams() -> Streams:
    return Streams(WatchedTransport(MemoryStore(), None), Times())


class Nobody:
    """A viewer that is handed nothing."""

    @property
    def sink(self) -> FrameWriter:
        raise AssertionError

    def follow_alone(self, after: Cursor | None) -> None:
        raise AssertionError


async def test_what_is_done_for_connections_ends_together(streams: Streams) -> None:
    """Also what begins later; not what has left."""
    entered, left = asyncio.Event(), asyncio.Event()

    async def stay() -> None:
        streams.enter()
        entered.set()
        await asyncio.Event().wait()

    async def leave() -> None:
        streams.enter()
        streams.leave()
        streams.leave()
        await left.wait()

    async with TaskSet() as tasks:
        staying, leaving = tasks.spawn(stay(), "stay"), tasks.spawn(leave(), "leave")
        await entered.wait()
        streams.end()
        late = tasks.spawn(stay(), "late")
        await asyncio.wait([staying, late])
        assert staying.cancelled()
        assert late.cancelled()
        left.set()
        await leaving


async def test_they_look_for_themselves_where_nobody_tells_them() -> None:
    told = False
    streams = Streams(WatchedTransport(MemoryStore(), None), Times(), lambda: told)
    assert streams.look_every == STOP_LOOK
    streams.check_open()
    told = True
    with pytest.raises(Unavailable, match="stopping"):
        streams.check_open()
    assert streams.closing


async def test_viewers_of_one_kind_share_an_audience_until_the_last_has_left(streams: Streams) -> None:
    one, other, nobody = streams.audience(Key("r")), streams.audience(Key("r")), Nobody()
    assert one is other
    assert streams.audience(Key("r", named=False)) is not one
    one.leave(nobody)
    assert streams.audience(Key("r")) is one
    one.leave(nobody)
    one.leave(nobody)
    assert streams.audience(Key("r")) is not one


async def test_a_dialect_has_an_audience_of_its_own(streams: Streams) -> None:
    one, other = streams.audience(Key("r"), Framer()), streams.audience(Key("r"), Framer())
    assert one is not other
    assert one.alone
    assert other.alone


async def test_an_owner_is_renewed_over_an_outage() -> None:
    async with MemoryStore() as store:
        await store.runs.create(Meta(run="r", actor="a", owner_lease=60.0))
        transport = WatchedTransport(store, None)
        renewing = spawn(renew(Streams(transport, Times(leave_grace=0.02)), "r"), "renew")
        assert await transport.touched.get() == "r"
        transport.trouble["heartbeat"] = Unavailable("away")
        await transport.stumbled.wait()
        del transport.trouble["heartbeat"]
        assert await transport.touched.get() == "r"
        renewing.cancel()
        await asyncio.wait([renewing])
        await transport.aclose()

"""What one process sees of others' claims: what has lapsed, in time, whatever else stands there."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Sequence

import pytest

from loom.model import limits
from loom.model.errors import Unavailable
from loom.model.run import Claim, Meta
from loom.stores.redis import RedisStore, parse_url
from loom.stores.redis.client.functions import LAPSING
from loom.stores.redis.client.link import Reply
from loom.stores.redis.keys import Keys
from loom.stores.redis.lookout import Lookout
from loom.tasks import cancel_and_wait, spawn
from loom.testing.clock import ManualClock
from tests.servers.server import Server

pytestmark = pytest.mark.anyio

STANDING, KINDS = 7, 8
MANY = LAPSING + 100


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def store(url: str, clock: ManualClock) -> AsyncIterator[RedisStore]:
    async with RedisStore(parse_url(url), clock=clock) as store:
        yield store


async def hold(
    store: RedisStore,
    count: int,
    worker: str,
    *,
    lease: float,
    queue: str = "default",
    actor: str = "actor",
    without: Sequence[str] = (),
) -> list[Claim]:
    metas = [Meta(run=f"{worker}-{number}", actor=actor, queue=queue) for number in range(count)]
    await asyncio.gather(*(store.queue.put(meta) for meta in metas))
    found = await asyncio.gather(
        *(store.queue.claim([queue], worker, lease=lease, wait=0.0, exclude=without) for _ in metas)
    )
    return [claim for claim in found if claim is not None]


async def claim(store: RedisStore, *, without: Sequence[str] = ()) -> str | None:
    found = await store.queue.claim(["default"], "observer", lease=100.0, wait=0.0, exclude=without)
    return None if found is None else found.run


async def lapsed(
    store: RedisStore, clock: ManualClock, run: str, lease: float, *, begin: float, without: Sequence[str] = ()
) -> None:
    """It can be claimed, before any other, its lease after it was seen first."""
    while (found := await claim(store, without=without)) is None:
        assert clock() < begin + lease + limits.OBSERVE
        clock.advance(0.125)
    assert found == run
    assert clock() >= begin + lease


async def test_a_long_lease_hides_no_short_one(store: RedisStore, clock: ManualClock) -> None:
    """However many healthy claims were renewed longer ago."""
    await hold(store, MANY, "healthy", lease=3600.0)
    assert await claim(store) is None
    await hold(store, 1, "dead", lease=0.5)
    await lapsed(store, clock, "dead-0", 0.5, begin=clock())


async def test_what_nobody_takes_over_hides_nothing(store: RedisStore, clock: ManualClock) -> None:
    """What has lapsed in a queue that nobody serves, or of an actor for which there is no room."""
    await hold(store, MANY, "unserved", lease=1.0, queue="unserved")
    await hold(store, MANY, "full", lease=1.0, actor="full")
    assert await claim(store) is None
    for _ in range(10):
        clock.advance(0.25)
        assert await claim(store, without=["full"]) is None
    await hold(store, 1, "dead", lease=1.0, without=["full"])
    await lapsed(store, clock, "dead-0", 1.0, begin=clock(), without=["full"])


async def test_a_long_pause_hides_no_short_one(store: RedisStore, clock: ManualClock) -> None:
    held = await hold(store, MANY, "failed", lease=10.0)
    await asyncio.gather(*(store.queue.release(claim, delay=3600.0) for claim in held))
    (last,) = await hold(store, 1, "soon", lease=10.0)
    await store.queue.release(last, delay=1.0)
    assert await claim(store) is None
    await lapsed(store, clock, "soon-0", 1.0, begin=clock())


async def test_many_claims_of_different_leases_each_lapse_in_time(store: RedisStore, clock: ManualClock) -> None:
    leases = [0.5, 0.6, 1.0, 1.1, 2.5, 3.0, 9.9, 10.0, 30.0]
    assert await claim(store) is None
    for lease in leases:
        await hold(store, 1, f"w{lease}", lease=lease)
    assert await claim(store) is None
    begin = clock()
    for lease in leases:
        await lapsed(store, clock, f"w{lease}-0", lease, begin=begin)


async def test_what_one_look_found_is_taken_by_all_workers_of_the_process_at_once(
    store: RedisStore, clock: ManualClock
) -> None:
    """Not by one of them, and by the others a look later."""
    await hold(store, 5, "dead", lease=10.0)
    for _ in range(21):
        assert await claim(store) is None
        clock.advance(0.49)
    clock.advance(limits.OBSERVE)
    found = await asyncio.gather(*(store.queue.claim(["default"], f"w{n}", lease=10.0, wait=0.0) for n in range(5)))
    assert None not in found


async def test_healthy_claims_cost_a_look_nothing(
    store: RedisStore, clock: ManualClock, valkey: Server, url: str
) -> None:
    """However short the shortest lease among them is: of each kind one is told, and no more."""
    held = await hold(store, 300, "healthy", lease=10.0)
    short = await hold(store, 1, "short", lease=0.5)
    assert await claim(store) is None
    sent = _sent(valkey)
    for turn in range(80):
        clock.advance(0.125)
        await store.queue.renew(short[0])
        if turn % 24 == 0:
            await asyncio.gather(*(store.queue.renew(one) for one in held))
        assert await claim(store) is None
    assert _sent(valkey) - sent < 50_000


def _sent(server: Server) -> int:
    return int(server.client().info("stats")["total_net_output_bytes"])


async def test_a_kind_goes_with_its_last_claim(store: RedisStore, valkey: Server, url: str) -> None:
    """And its number is used again: else whoever claims with ever new leases would use them all up."""
    keys, raw = Keys(parse_url(url).prefix), valkey.client()
    held = [*await hold(store, 2, "w1", lease=0.5), *await hold(store, 2, "w2", lease=10.0)]
    assert raw.zrange(keys.queues[KINDS], 0, -1, withscores=True) == [
        ("default actor leased 0.5", 0.0),
        ("default actor leased 10", 1.0),
    ]
    for one in held[:2]:
        await store.queue.ack(one)
    await store.queue.release(held[2], delay=0.3)
    assert raw.zrange(keys.queues[KINDS], 0, -1, withscores=True) == [
        ("default actor paused 0.25", 0.0),
        ("default actor leased 10", 1.0),
    ]
    await store.queue.ack(held[3])
    await store.runs.drop(held[2].run)
    assert raw.exists(keys.queues[STANDING], keys.queues[KINDS]) == 0


async def test_a_kind_of_which_nothing_is_left_is_cleared_away(store: RedisStore, valkey: Server, url: str) -> None:
    keys, raw = Keys(parse_url(url).prefix), valkey.client()
    raw.zadd(keys.queues[KINDS], {"default actor leased 10": 0})
    assert await claim(store) is None
    assert raw.exists(keys.queues[KINDS]) == 0


class Desk:
    """Answers as the server would, and counts."""

    def __init__(self) -> None:
        self.calls: list[tuple[str | bytes | int, ...]] = []
        self.error: Exception | None = None
        self.open = asyncio.Event()
        self.open.set()
        self.asked = asyncio.Event()

    async def __call__(self, function: str, *args: str | bytes | int) -> Reply:
        self.calls.append((function, *args))
        self.asked.set()
        await self.open.wait()
        if self.error is not None:
            raise self.error
        return [b"0", []]


async def test_one_look_serves_all_until_the_next_is_due() -> None:
    desk, clock = Desk(), ManualClock()
    lookout = Lookout(desk, clock)
    await asyncio.gather(*(lookout.look(["a"]) for _ in range(10)))
    clock.advance(limits.OBSERVE * 0.9)
    await lookout.look(["a"])
    assert desk.calls == [("look", "a")]
    clock.advance(limits.OBSERVE * 0.1)
    await asyncio.gather(*(lookout.look(["a"]) for _ in range(10)))
    assert desk.calls == [("look", "a")] * 2


async def test_a_queue_is_looked_at_for_as_long_as_somebody_claims_from_it() -> None:
    """From the first moment."""
    desk, clock = Desk(), ManualClock()
    lookout = Lookout(desk, clock)
    await lookout.look(["a"])
    await lookout.look(["b"])
    assert desk.calls == [("look", "a"), ("look", "a", "b")]
    clock.advance(limits.SERVED)
    await lookout.look(["b"])
    assert desk.calls[2:] == [("look", "b")]


async def test_a_look_that_failed_is_made_again_when_the_next_is_due() -> None:
    """Claims go on meanwhile."""
    desk, clock = Desk(), ManualClock()
    lookout = Lookout(desk, clock)
    desk.error = Unavailable("gone")
    with pytest.raises(Unavailable):
        await lookout.look(["a"])
    desk.error = None
    await lookout.look(["a"])
    assert lookout.due == limits.OBSERVE
    clock.advance(limits.OBSERVE)
    await lookout.look(["a"])
    assert desk.calls == [("look", "a")] * 2


async def test_a_look_goes_on_without_who_began_it() -> None:
    """A worker that is cut short again and again keeps nobody from seeing what has lapsed; nor does it look twice."""
    desk, clock = Desk(), ManualClock()
    lookout = Lookout(desk, clock)
    desk.open.clear()
    looks = [spawn(lookout.look(["a"]), "look") for _ in range(3)]
    await desk.asked.wait()
    await cancel_and_wait(looks[0])
    clock.advance(10.0)
    looks.append(spawn(lookout.look(["a"]), "look"))
    assert not any(look.done() for look in looks[1:])
    desk.open.set()
    await asyncio.gather(*looks[1:])
    assert desk.calls == [("look", "a")]
    await lookout.aclose()


async def test_a_look_that_fails_when_all_have_left_is_nobodys_error(caplog: pytest.LogCaptureFixture) -> None:
    desk, clock = Desk(), ManualClock()
    lookout = Lookout(desk, clock)
    desk.open.clear()
    desk.error = Unavailable("gone")
    look = spawn(lookout.look(["a"]), "look")
    await desk.asked.wait()
    await cancel_and_wait(look)
    desk.open.set()
    await lookout.aclose()
    gc.collect()
    assert "never retrieved" not in caplog.text

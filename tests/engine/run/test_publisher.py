"""The publisher: a writer outside any producer, on virtual time."""

# ruff: noqa: PT012, SIM117
# What a publisher does when its block is left is what is tested: the blocks are whole.

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

import loom
from loom.engine.declare.registry import Registry
from loom.engine.follow.client import Client
from loom.engine.follow.transport import StoreTransport
from loom.engine.run.publisher import Publisher
from loom.engine.run.watchman import WATCH_PUBLISHED
from loom.engine.run.worker import Worker
from loom.engine.run.writer import BATCH_CHUNKS
from loom.model import limits
from loom.model.errors import (
    Conflict,
    Fenced,
    HandleClosed,
    LimitExceeded,
    LocalProtocolError,
    LogEnded,
    RunCancelled,
    RunFailed,
    RunLost,
    Unavailable,
    UsageError,
)
from loom.model.names import PUBLISHED
from loom.model.ports import Store
from loom.model.retraction import surviving
from loom.model.run import Claim
from loom.stores.memory import MemoryStore
from loom.tasks import cancel_and_wait, spawn
from tests.engine.kit import chunks_in, data_in, grammatical, types_in, until
from tests.faults.store import FaultStore
from tests.virtual import Clock, VirtualLoop

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> Any:
    return "asyncio", {"loop_factory": VirtualLoop}


@pytest.fixture
def store(virtual_time: Clock) -> FaultStore:
    return FaultStore(MemoryStore(clock=virtual_time))


@asynccontextmanager
async def a_client(store: Store) -> AsyncIterator[Client]:
    async with Client(StoreTransport(store)) as client:
        yield client


@pytest.fixture
async def client(store: FaultStore) -> AsyncIterator[Client]:
    async with a_client(store) as client:
        yield client


async def held(store: Store) -> bool:
    """Whether the queue of publishers still holds an entry: for whoever would claim it, when all its leases lapse."""
    await asyncio.sleep(10 * limits.PUBLISHER_LEASE)
    async with asyncio.timeout(60):
        for _ in range(200):
            if await store.queue.claim([PUBLISHED], "test", lease=1.0, wait=0.0) is not None:
                return True
            await asyncio.sleep(0.25)
    return False


async def crash(publisher: Publisher) -> None:
    """As if its process were gone."""
    await publisher._open.aclose()


# --- from the beginning to the end -----------------------------------------------------------------------------------


async def test_what_is_published_is_a_run(store: FaultStore, client: Client) -> None:
    async with client.publisher("job", actor="importer") as pub:
        assert (pub.id, pub.attempt, pub.kept_through, pub.tail) == ("job", 1, 0, 1)
        await pub.publish("one")
        await pub.publish(loom.Progress(1, 2))
        await pub.publish(loom.Chunk("stdout", "two", source="child"))
        await pub.flush()
        assert pub.tail == 4
        await pub.complete({"rows": 2})
    chunks = await chunks_in(store, "job")
    assert types_in(chunks) == ["start", "data", "progress", "stdout", "complete"]
    assert (chunks[0].data, chunks[3].source) == ({"attempt": 1, "actor": "importer", "kept_through": 0}, "child")
    head = await client.run("job").status()
    assert (head.state, head.meta.actor, head.meta.published) == ("completed", "importer", True)
    assert await client.run("job").result() == {"rows": 2}
    assert not await held(store)


async def test_without_an_id_it_is_a_new_run(client: Client) -> None:
    async with client.publisher() as one, client.publisher() as other:
        assert one.id != other.id


async def test_leaving_the_block_completes(client: Client) -> None:
    async with client.publisher("job") as pub:
        await pub.publish("one")
    assert await client.run("job").result() == "one"


async def test_a_result_may_be_published(client: Client) -> None:
    async with client.publisher("job") as pub:
        await pub.publish(loom.Result(7))
    assert await client.run("job").result() == 7


async def test_leaving_by_an_exception_fails(client: Client) -> None:
    with pytest.raises(ValueError, match="because"):
        async with client.publisher("job") as pub:
            await pub.publish("one")
            raise ValueError("because")
    with pytest.raises(RunFailed, match="ValueError: because"):
        await client.run("job").result()


async def test_a_result_that_cannot_be_said_fails(store: FaultStore, client: Client) -> None:
    """It was taken when it was published, and is looked at when the block is left: nobody was lost."""
    with pytest.raises(RunFailed, match="object"):
        async with client.publisher("job") as pub:
            await pub.publish(loom.Result(object()))
    head = await client.run("job").status()
    assert head.error is not None
    assert (head.state, head.error.code) == ("failed", "invalid_output")
    assert not await held(store)


async def test_an_end_that_nobody_waited_for_is_waited_for_by_leaving(store: FaultStore, client: Client) -> None:
    """It was said: it is neither said otherwise, nor left to whoever looks for the dead."""
    append = store.hold("append", skip=1)
    with pytest.raises(KeyboardInterrupt):
        async with client.publisher("job") as pub:
            completing = spawn(pub.complete(7), "complete")
            await append.arrived.wait()
            await cancel_and_wait(completing)
            append.let_go()
            raise KeyboardInterrupt
    assert await client.run("job").result() == 7
    assert not await held(store)


async def test_a_failure_is_said(client: Client) -> None:
    for error in ("because", RuntimeError("because"), loom.ErrorInfo("of_ours", "because")):
        async with client.publisher() as pub:
            await pub.fail(error)
        with pytest.raises(RunFailed, match="because"):
            await client.run(pub.id).result()


async def test_leaving_by_a_cancellation_cancels(store: FaultStore, client: Client) -> None:
    opened = asyncio.Event()

    async def publish() -> None:
        async with client.publisher("job") as pub:
            await pub.publish("one")
            opened.set()
            await asyncio.Event().wait()

    task = spawn(publish(), "publish")
    await opened.wait()
    await cancel_and_wait(task)
    head = await client.run("job").status()
    assert (head.state, (await chunks_in(store, "job"))[1].data) == ("cancelled", "one")


async def test_nothing_follows_the_end(client: Client) -> None:
    async with client.publisher("job") as pub:
        await pub.complete(1)
        for call in (pub.publish("more"), pub.complete(2), pub.fail("late")):
            with pytest.raises(LocalProtocolError):
                await call
    assert await client.run("job").result() == 1
    with pytest.raises(LogEnded):
        await client.publisher("job").__aenter__()


async def test_what_cannot_be_said_changes_nothing(client: Client) -> None:
    async with client.publisher("job") as pub:
        with pytest.raises(RunFailed, match="cannot send"):
            await pub.publish(object())
        with pytest.raises(LimitExceeded):
            await pub.publish("x" * (limits.CHUNK_BYTES + 1))
        with pytest.raises(LocalProtocolError, match="start"):
            await pub.publish(loom.Chunk("start"))
        with pytest.raises(RunFailed):
            await pub.complete(object())
        await pub.publish("fine")
    assert await client.run("job").result() == "fine"


async def test_it_is_used_in_its_block(client: Client) -> None:
    pub = client.publisher("job")
    with pytest.raises(HandleClosed):
        await pub.publish("x")
    async with pub:
        pass
    with pytest.raises(HandleClosed):
        await pub.__aenter__()


@pytest.mark.parametrize(
    "wrong",
    [
        {"lease": 0},
        {"lease": float("inf")},
        {"lease": True},
        {"retention": -1},
        {"retention": True},
        {"keep": 1000},
        {"id": "a b"},
        {"id": 7},
        {"id": uuid.uuid4()},
    ],
)
async def test_what_is_wrong_is_told_at_once(client: Client, wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        client.publisher(**wrong)


# --- another run, another publisher ----------------------------------------------------------------------------------


async def test_an_actors_run_is_not_touched(store: FaultStore, client: Client) -> None:
    """Neither its log nor its queue entry, wherever it stands."""
    await client.start("chat", id="job")
    with pytest.raises(Conflict):
        await client.publisher("job").__aenter__()
    claim = await store.queue.claim(["default"], "w1", lease=10.0, wait=0.0)
    assert claim is not None
    await store.queue.renew(claim)


async def test_another_kind_of_publisher_is_refused(client: Client) -> None:
    async with client.publisher("job", actor="importer") as pub:
        with pytest.raises(Conflict):
            await client.publisher("job", actor="exporter").__aenter__()
        await pub.publish("still mine")


async def test_nobody_starts_a_run_where_publishers_are(client: Client) -> None:
    with pytest.raises(loom.InvalidInput, match="reserved"):
        await client.start("chat", queue=PUBLISHED)


async def test_a_second_publisher_takes_over(store: FaultStore, client: Client) -> None:
    async with client.publisher("job") as second:
        pass
    first = client.publisher("log")
    with pytest.raises(Fenced):
        async with first:
            await first.publish("one")
            await first.flush()
            async with client.publisher("log") as second:
                assert second.kept_through == first.tail == 2
                assert [chunk.data for chunk in await second.previous()] == ["one"]
                await second.publish("two")
                with pytest.raises(Fenced):
                    await first.publish("lost")
                    await first.flush()
                await second.publish("three")
            await first.publish("more")
    chunks = await chunks_in(store, "log")
    assert types_in(chunks) == ["start", "data", "start", "data", "data", "complete"]
    assert data_in(chunks) == ["one", "two", "three"]
    assert chunks[2].data["kept_through"] == 2
    grammatical(chunks)


async def test_of_two_that_open_it_at_once_one_goes_on(store: FaultStore, client: Client) -> None:
    """Not: one that has the run's entry, and one that has its epoch, and both are told that another took over."""
    fence = store.hold("fence")
    early, late = client.publisher("job"), client.publisher("job")
    opening = spawn(early.__aenter__(), "early")
    await fence.arrived.wait()
    await late.__aenter__()
    fence.let_go()
    await opening
    await asyncio.sleep(limits.PUBLISHER_LEASE)
    await early.publish("one")
    await early.__aexit__(None, None, None)
    with pytest.raises(Fenced):
        await late.__aexit__(None, None, None)
    assert await client.run("job").result() == "one"


async def test_one_that_opens_what_another_has_ended_meanwhile(store: FaultStore, client: Client) -> None:
    create = store.hold("create")
    late = spawn(client.publisher("job").__aenter__(), "late")
    await create.arrived.wait()
    async with client.publisher("job"):
        pass
    create.let_go()
    with pytest.raises(LogEnded):
        await late
    assert not await held(store)


async def test_one_that_says_nothing_learns_of_it_by_its_lease(client: Client) -> None:
    with pytest.raises(Fenced, match="took over"):
        async with client.publisher("job", lease=3.0) as first:
            async with client.publisher("job"):
                await asyncio.sleep(2.0)
                with pytest.raises(Fenced, match="took over"):
                    await first.publish("x")
    assert (await client.run("job").status()).state == "completed"


async def test_one_that_crashed_is_gone_on_with(store: FaultStore, client: Client) -> None:
    for number in range(4):
        pub = await client.publisher("job").__aenter__()
        assert [chunk.data for chunk in await pub.previous()] == list(range(number))
        assert pub.attempt == number + 1
        await pub.publish(number)
        await pub.flush()
        await crash(pub)
    async with client.publisher("job") as pub:
        pass
    chunks = await chunks_in(store, "job")
    assert data_in(surviving(chunks)) == [0, 1, 2, 3]
    assert await client.run("job").result() == [0, 1, 2, 3]


async def test_with_restart_what_was_said_is_taken_back(client: Client) -> None:
    pub = await client.publisher("job").__aenter__()
    await pub.publish("wrong")
    await pub.flush()
    await crash(pub)
    async with client.publisher("job", restart=True) as pub:
        assert (pub.kept_through, list(await pub.previous())) == (0, [])
        await pub.publish("right")
    assert await client.run("job").result() == "right"


async def test_a_run_is_handed_over(store: FaultStore, client: Client) -> None:
    async with client.publisher("job", lease=60.0) as pub:
        await pub.publish("one")
        await pub.hand_over()
        with pytest.raises(HandleClosed, match="handed"):
            await pub.publish("more")
    await asyncio.sleep(50.0)
    async with client.publisher("job") as pub:
        await pub.publish("two")
    assert await client.run("job").result() == "onetwo"


async def test_what_has_ended_is_not_handed_over(client: Client) -> None:
    async with client.publisher("job") as pub:
        await pub.complete()
        with pytest.raises(LocalProtocolError):
            await pub.hand_over()


class _Lost:
    """Where renewals get lost."""

    def __init__(self) -> None:
        self.queue = self

    async def renew(self, claim: Claim) -> None: ...


# --- a publisher that dies -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("handed", [True, False])
async def test_no_reader_hangs(client: Client, handed: bool) -> None:
    """Also where there is no worker: whoever reads keeps watch."""
    pub = await client.publisher("job", lease=6.0).__aenter__()
    await pub.publish("one")
    await pub.flush()
    if handed:
        await pub.hand_over()
    await crash(pub)
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(RunLost, match="publisher"):
        await client.run("job").result()
    assert 6.0 <= loop.time() - began <= 1.5 * 6.0 + 2 * WATCH_PUBLISHED
    with pytest.raises(LogEnded):
        await client.publisher("job").__aenter__()


async def test_a_worker_keeps_watch(store: FaultStore, client: Client) -> None:
    pub = await client.publisher("job", lease=6.0).__aenter__()
    await crash(pub)
    async with Worker(store, Registry(), concurrency=1, drain=0.0):
        await asyncio.sleep(20.0)
    assert (await client.run("job").status()).state == "lost"
    assert not await held(store)


async def test_one_that_lives_is_left_alone(store: FaultStore, client: Client) -> None:
    """However long it says nothing."""
    async with Worker(store, Registry(), drain=0.0), client.publisher("job") as pub:
        await asyncio.sleep(1000.0)
        await store.sweep()
        await pub.publish("still here")
    assert await client.run("job").result() == "still here"


async def test_one_that_died_before_it_had_a_log(store: FaultStore, client: Client) -> None:
    """The entry comes first: what was begun is ended."""
    store.refuse("create", RuntimeError("killed"))
    with pytest.raises(RuntimeError):
        await client.publisher("job").__aenter__()
    async with Worker(store, Registry(), drain=0.0):
        await asyncio.sleep(100.0)
    assert (await client.run("job").status()).state == "lost"


async def test_one_that_was_taken_for_dead_writes_nothing_more(store: FaultStore, client: Client) -> None:
    pub = client.publisher("job", lease=6.0)
    with pytest.raises(Fenced):
        async with pub:
            await pub.publish("one")
            await pub.flush()
            pub._open._store = cast(Any, _Lost())  # as if it were paused: the store hears nothing of it
            async with Worker(store, Registry(), drain=0.0):
                await asyncio.sleep(20.0)
            await pub.publish("late")
            await pub.flush()
    assert types_in(await chunks_in(store, "job")) == ["start", "data", "error"]


async def test_a_store_out_of_reach_ends_the_wait(store: FaultStore, client: Client) -> None:
    """A short outage is waited out; one of a lease is told."""
    with pytest.raises(Unavailable, match="for the lease"):
        async with client.publisher("job", lease=6.0) as pub:
            with store.outage():
                await pub.publish("one")
                flushing = spawn(pub.flush(), "flush")
                await asyncio.sleep(3.0)
            await flushing
            with pytest.raises(Unavailable, match="for the lease"), store.outage():
                await pub.publish("two")
                await pub.flush()
            await pub.publish("three")
    assert data_in(await chunks_in(store, "job"))[0] == "one"


async def test_the_blocks_own_exception_comes_through(store: FaultStore, client: Client) -> None:
    """Also when the end cannot be stored."""
    with pytest.raises(ValueError, match="because"):
        async with client.publisher("job", lease=3.0):
            store.out = True
            raise ValueError("because")
    store.out = False
    with pytest.raises(RunLost):
        await client.run("job").result()


async def test_an_answer_that_was_lost_is_asked_for_again(store: FaultStore, client: Client) -> None:
    store.lose_reply("append", skip=1, times=3)
    store.lose_reply("ack")
    async with client.publisher("job") as pub:
        await pub.publish("one")
        await pub.flush()
    assert await client.run("job").result() == "one"
    assert not await held(store)


# --- cancelled, told -------------------------------------------------------------------------------------------------


async def test_a_cancel_is_seen_and_confirmed(store: FaultStore, client: Client) -> None:
    with pytest.raises(RunCancelled):
        async with client.publisher("job") as pub:
            await pub.publish("one")
            assert not pub.cancelled
            await client.run("job").cancel()
            await pub.wait_cancelled()
            assert pub.cancelled
            for call in (pub.publish("two"), pub.complete(1), pub.flush(), pub.fail("x")):
                with pytest.raises(RunCancelled):
                    await call
            await pub.publish("three")
    chunks = await chunks_in(store, "job")
    assert types_in(chunks) == ["start", "data", "error"]
    assert chunks[-1].error is not None
    assert chunks[-1].error.code == "cancelled"


async def test_leaving_after_a_cancel_says_so(client: Client) -> None:
    """What was done after it is not what it would have been."""
    with pytest.raises(RunCancelled):
        async with client.publisher("job") as pub:
            await client.run("job").cancel()
            await pub.wait_cancelled()
    assert (await client.run("job").status()).state == "cancelled"


async def test_who_does_not_stop_is_told_as_abandoned(client: Client) -> None:
    with pytest.raises(RunCancelled):
        async with client.publisher("job") as pub:
            await client.run("job").cancel(wait=True)
            head = await client.run("job").status()
            assert head.error is not None
            assert (head.state, head.error.details) == ("cancelled", {"abandoned": True})
            await asyncio.sleep(100.0)
            await pub.publish("late")


async def test_leaving_after_that_says_so_too(client: Client) -> None:
    with pytest.raises(RunCancelled):
        async with client.publisher("job"):
            await client.run("job").cancel(wait=True)


@pytest.mark.parametrize("turns", range(8))
async def test_leaving_while_it_is_told_as_abandoned(store: FaultStore, client: Client, turns: int) -> None:
    with pytest.raises(RunCancelled):
        async with client.publisher("job"):
            await client.run("job").cancel()
            append = store.hold("append")
            await append.arrived.wait()
            append.let_go()
            for _ in range(turns):
                await asyncio.sleep(0)
    assert types_in(await chunks_in(store, "job")) == ["start", "error"]


async def test_who_says_how_it_ends_is_told_of_no_cancel(store: FaultStore, client: Client) -> None:
    append = store.hold("append", skip=1)
    async with client.publisher("job") as pub:
        completing = spawn(pub.complete(7), "complete")
        await append.arrived.wait()
        await client.run("job").cancel()
        await pub.wait_cancelled()
        append.let_go()
        await completing
    assert await client.run("job").result() == 7


async def test_it_is_told_things(client: Client) -> None:
    async with client.publisher("job") as pub:
        await client.run("job").send("approve", {"by": "me"})
        assert (await pub.receive("approve")).data == {"by": "me"}


async def test_nobody_waits_for_what_can_no_longer_come(store: FaultStore, client: Client) -> None:
    """A message, or the cancel: the publisher is told what ended it."""
    with pytest.raises(RunCancelled):
        async with client.publisher("cancelled") as pub:
            receiving = spawn(pub.receive(), "receive")
            await client.run("cancelled").cancel()
            await receiving
    for run in ("receives", "waits"):
        with pytest.raises(Fenced):
            async with client.publisher(run, lease=3.0) as pub:
                waiting = spawn(_wait(pub, run), "wait")
                async with client.publisher(run):
                    await asyncio.sleep(3.0)
                await waiting


async def _wait(pub: Publisher, how: str) -> None:
    if how == "receives":
        await pub.receive()
    else:
        await pub.wait_cancelled()


async def test_a_run_that_was_dropped(store: FaultStore, client: Client) -> None:
    with pytest.raises(loom.LogError):
        async with client.publisher("job") as pub:
            await store.runs.drop("job")
            await until(pub._open.writer.on_broken.done)
            await pub.publish("x")


# --- bounds ----------------------------------------------------------------------------------------------------------


async def test_publish_waits_while_the_batch_is_full(store: FaultStore, client: Client) -> None:
    async with client.publisher("job") as pub:
        standing = store.hold("append")
        published = 0

        async def flood() -> None:
            nonlocal published
            for _ in range(3 * BATCH_CHUNKS):
                await pub.publish("x")
                published += 1

        flooding = spawn(flood(), "flood")
        await asyncio.sleep(1.0)
        assert BATCH_CHUNKS <= published <= 2 * BATCH_CHUNKS + limits.YIELD_EVERY
        standing.let_go()
        await flooding
    assert len(await client.run("job").result()) == 3 * BATCH_CHUNKS


async def test_a_full_log_is_told(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LOG_BYTES", 10_000)
    with pytest.raises(RunFailed, match="log is full") as full:
        async with client.publisher("job") as pub:
            for _ in range(1000):
                await pub.publish("x" * 1000)
                await pub.flush()
    assert full.value.code == "log_full"
    head = await client.run("job").status()
    assert head.error is not None
    assert (head.state, head.error.code) == ("failed", "log_full")


async def test_a_log_with_keep_goes_on(store: FaultStore, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LOG_BYTES", 10_000)
    async with client.publisher("job", keep=loom.Keep(bytes=20_000)) as pub:
        for _ in range(200):
            await pub.publish("x" * 1000)
            await pub.flush()
        head = await client.run("job").status()
        assert 15 <= head.tail - head.first <= 25
    text = await client.run("job").text()
    assert 15_000 <= len(text) <= 25_000


async def test_it_is_kept_as_long_as_it_says(
    store: FaultStore, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LEAST_RETENTION", 0.0)
    async with client.publisher("job", retention=0):
        pass
    await store.sweep()
    with pytest.raises(loom.LogNotFound):
        await client.run("job").status()

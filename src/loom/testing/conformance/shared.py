"""What holds between several objects on one place."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from loom.model.chunk import Chunk
from loom.model.cursor import Cursor, attempt_of
from loom.model.errors import Fenced, LogNotFound
from loom.model.ports import LogSpec, ProducerSeq, Store, message_producer
from loom.model.run import inbox_of
from loom.tasks import spawn
from loom.testing.author import Author, read_all
from loom.testing.clock import ManualClock, StoreFactory

from .kit import LEASE, WAIT, Suite, Told, claim, meta, must_claim, outcome_of, stand_still, turns


class SharedConformance(Suite):
    """What holds between objects that are open on one place at once, and one after the other."""

    @pytest.fixture
    async def other(self, make_store: StoreFactory, clock: ManualClock, store: Store) -> AsyncIterator[Store]:
        """A second object on the place of `store`."""
        async with make_store(clock) as other:
            yield other

    async def test_g4_everything_outlasts_a_restart(self, make_store: StoreFactory, clock: ManualClock) -> None:
        """Runs, chunks, ends, messages, tokens and the queue."""
        async with make_store(clock) as store:
            await (await Author.start(store, "ended")).say("data", Chunk("complete", {"answer": 42}))
            author = await Author.start(store, "open")
            last = author.batch("data")
            await author.send(last)
            sent = await store.logs.send(inbox_of("open"), b'{"type":"x"}', message_producer("s", "1"))
            await store.logs.create("free", LogSpec(policy="many", content_type="text/plain", max_records=9))
            kept = await store.logs.send("free", b"1\n", ProducerSeq("p", 2, 0))
            await store.queue.put(meta("queued"))
            heads = [await store.runs.get(run) for run in ("ended", "open")]
            lines = [await read_all(store.logs, run) for run in ("ended", "open")]
        async with make_store(clock) as store:
            assert [await store.runs.get(run) for run in ("ended", "open")] == heads
            assert [await read_all(store.logs, run) for run in ("ended", "open")] == lines
            assert await store.logs.send(inbox_of("open"), b'{"type":"x"}', message_producer("s", "1")) == sent
            assert (await store.logs.fence("open", "token")).epoch == author.epoch
            assert await store.logs.append("open", last) == last.cursor
            info = await store.logs.info("free")
            assert (info.spec.content_type, info.spec.max_records, info.tail, info.size) == ("text/plain", 9, 1, 2)
            assert await store.logs.send("free", b"1\n", ProducerSeq("p", 2, 0)) == kept
            assert (await store.logs.read("free")).batches[0].payload == b"1\n"
            assert (await must_claim(store.queue)).run == "queued"

    async def test_g2_a_fence_by_one_object_fences_the_others_writer(self, store: Store, other: Store) -> None:
        """It is the place that refuses, not an object's memory of it."""
        zombie = await Author.start(store)
        await zombie.say("data")
        heir = await Author.take(other.logs, "run", "token-2")
        with pytest.raises(Fenced):
            await zombie.say("data")
        assert heir.tail == 2
        await heir.say("start")
        assert await read_all(store.logs, "run") == await read_all(other.logs, "run")

    async def test_g2_concurrent_fences_of_two_objects_leave_one_writer(self, store: Store, other: Store) -> None:
        """As within one."""
        await store.runs.create(meta())
        stores = [store, other] * 4
        fences = await asyncio.gather(
            *(each.logs.fence("run", f"token-{number}") for number, each in enumerate(stores))
        )
        authors = [Author(each.logs, "run", fence) for each, fence in zip(stores, fences, strict=True)]
        outcomes = await asyncio.gather(*(outcome_of(author.say("start")) for author in authors))
        assert sum(isinstance(outcome, Cursor) for outcome in outcomes) == 1
        assert len({attempt_of(fence.epoch) for fence in fences}) == 8

    @pytest.mark.parametrize("count", range(4))
    async def test_g7_what_one_object_appends_wakes_the_others_reader(
        self, store: Store, other: Store, count: int
    ) -> None:
        """On appends, messages and the end; nothing is lost between them."""
        author = await Author.start(store)
        cursor = Cursor(author.epoch, 1)
        for _ in range(5):
            reading = spawn(other.logs.read("run", cursor, wait=WAIT), "read")
            await turns(count)
            cursor = await author.say("data")
            assert (await reading).cursor == cursor
        listening = spawn(other.logs.read(inbox_of("run"), wait=WAIT), "listen")
        await turns(count)
        await store.logs.send(inbox_of("run"), b'{"type":"x"}', message_producer("s", "1"))
        heard = await listening
        assert len(heard) == 1
        reading = spawn(other.logs.read("run", cursor, wait=WAIT), "read")
        listening = spawn(other.logs.read(inbox_of("run"), heard.cursor, wait=WAIT), "listen")
        await turns(count)
        await author.say("complete")
        assert (await reading).ended
        assert (await listening).ended

    async def test_g7_what_one_object_drops_wakes_the_others_reader(self, store: Store, other: Store) -> None:
        """With `LogNotFound`."""
        author = await Author.start(store)
        reading = spawn(outcome_of(other.logs.read("run", Cursor(author.epoch, 1), wait=WAIT)), "read")
        await turns(5)
        await store.runs.drop("run")
        assert isinstance(await reading, LogNotFound)

    async def test_g7_a_watcher_is_told_of_the_other_objects_changes(self, store: Store, other: Store) -> None:
        """Appends, marks and the drop."""
        author = await Author.start(store)
        told = Told(other.logs, "run")
        await author.say("data")
        await told.next()
        await store.logs.commit_position("run", "reader", 1)
        await told.next(marks=True)
        assert [mark.reader for mark in await other.logs.positions("run")] == ["reader"]
        await store.runs.drop("run")
        await told.next()
        told.unwatch()

    async def test_g9_each_run_goes_to_one_worker_of_either_object(self, store: Store, other: Store) -> None:
        """However many ask at once."""
        for number in range(10):
            await store.queue.put(meta(f"run-{number}"))
        claims = await asyncio.gather(*(claim([store, other][number % 2].queue, f"w{number}") for number in range(30)))
        assert sorted(each.run for each in claims if each) == sorted(f"run-{number}" for number in range(10))

    async def test_g9_an_object_takes_over_only_what_it_has_watched(
        self, store: Store, other: Store, clock: ManualClock
    ) -> None:
        """A lease is measured from when this object first saw the heartbeat: clocks of others count for nothing."""
        await store.queue.put(meta())
        held = await must_claim(store.queue, "w1")
        clock.advance(LEASE * 10)
        assert await claim(other.queue, "w2") is None
        await stand_still(other.queue, clock, LEASE * 0.9)
        await store.queue.renew(held)
        assert await claim(other.queue, "w2") is None
        await stand_still(other.queue, clock, LEASE * 0.9)
        assert await claim(other.queue, "w2") is None
        await stand_still(other.queue, clock, LEASE * 0.2)
        heir = await must_claim(other.queue, "w2")
        assert heir.crashes == 1
        with pytest.raises(Fenced):
            await store.queue.renew(held)

    async def test_g9_a_put_by_one_object_wakes_the_others_worker(self, store: Store, other: Store) -> None:
        """So do a release and the acknowledgement of a key's first."""
        waiting = spawn(must_claim(other.queue, "w2", wait=WAIT), "claim")
        await turns(5)
        await store.queue.put(meta("run-1", key="k"))
        await store.queue.put(meta("run-2", key="k"))
        held = await waiting
        waiting = spawn(must_claim(store.queue, "w1", wait=WAIT), "claim")
        await turns(5)
        await other.queue.release(held)
        held = await waiting
        assert held.run == "run-1"
        waiting = spawn(must_claim(other.queue, "w2", wait=WAIT), "claim")
        await turns(5)
        await store.queue.ack(held)
        assert (await waiting).run == "run-2"

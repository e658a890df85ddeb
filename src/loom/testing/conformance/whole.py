"""The guarantees of a store's four ports together: sweeps, retention, runs that leave the queue."""

from __future__ import annotations

import time
from typing import get_args

import pytest

from loom.model import limits
from loom.model.chunk import Chunk
from loom.model.errors import Fenced, LogNotFound
from loom.model.names import PUBLISHED
from loom.model.ports import Durability, LogSpec, Store, SweepReport
from loom.tasks import spawn
from loom.testing.author import Author, read_all
from loom.testing.clock import ManualClock, StoreFactory
from loom.wire.json import decode_chunk

from .kit import (
    CANCELLED,
    FAR,
    LEASE,
    QUEUES,
    WAIT,
    LogMaker,
    LogsAlone,
    Outboxes,
    Suite,
    claim,
    meta,
    must_claim,
    stand_still,
    turns,
)


class WholeConformance(Suite):
    """Guarantees that take more than one port."""

    @pytest.fixture(params=["log", "outbox"])
    def maker(self, request: pytest.FixtureRequest, store: Store) -> LogMaker:
        """Every guarantee of a log is one of outboxes too."""
        return Outboxes(store) if request.param == "outbox" else LogsAlone(store.logs)

    async def test_durability_is_named(self, store: Store) -> None:
        """A store says what an acknowledged append survives, in one of the four words."""
        assert store.durability in get_args(Durability)

    async def test_g9_an_entry_that_is_held_is_nobody_elses(self, store: Store) -> None:
        """It is put and claimed in one act."""
        held = await store.queue.force_claim(meta(queue=PUBLISHED), "p1", lease=LEASE)
        assert (held.run, held.worker, held.crashes, held.meta.published) == ("run", "p1", 0, True)
        assert await claim(store.queue, queues=[PUBLISHED]) is None
        await store.runs.create(held.meta)
        assert (await store.sweep()).requeued == 0
        await store.queue.renew(held)
        await store.queue.ack(held)
        assert await claim(store.queue, queues=[PUBLISHED]) is None

    async def test_g10_a_published_run_whose_entry_was_lost_is_found(self, store: Store) -> None:
        """It is put back where publishers' entries are, free to be claimed."""
        await Author.start(store, queue=PUBLISHED)
        assert (await store.sweep()).requeued == 1
        assert (await must_claim(store.queue, queues=[PUBLISHED])).run == "run"

    async def test_an_ended_run_is_kept_for_its_own_retention(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The retention of the start comes before the store's own."""
        monkeypatch.setattr(limits, "LEAST_RETENTION", 0.0)
        for run, retention in (("brief", 0.0), ("long", 1e9), ("plain", None)):
            await (await Author.start(store, run, retention=retention)).say("complete")
        await Author.start(store, "open", retention=0.0)
        await store.sweep()
        assert {head.meta.run for head in await store.runs.list_runs()} == {"long", "plain", "open"}
        with pytest.raises(LogNotFound):
            await store.runs.get("brief")

    async def test_an_ended_run_is_kept_until_who_waited_for_it_has_read_it(self, store: Store) -> None:
        """Whatever its retention: its result is of no use where nobody can read it."""
        claims = []
        for run, retention in (("none", 0.0), ("brief", limits.LEAST_RETENTION / 2)):
            await store.queue.put(meta(run, retention=retention))
            claims.append(await must_claim(store.queue))
            await (await Author.start(store, run, retention=retention)).say("data", "complete")
        for claimed in claims:
            await store.queue.ack(claimed)
        await store.sweep()
        for run in ("none", "brief"):
            assert (await store.runs.get(run)).state == "completed"
            assert [decode_chunk(line).type for _, line in await read_all(store.logs, run)] == [
                "start",
                "data",
                "complete",
            ]

    async def test_retention_waits_for_the_acknowledgement(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        """A run that its queue still holds is not dropped."""
        monkeypatch.setattr(limits, "LEAST_RETENTION", 0.0)
        await store.queue.put(meta(retention=0.0))
        claimed = await must_claim(store.queue)
        await (await Author.start(store, retention=0.0)).say("complete")
        await store.sweep()
        assert (await store.runs.get("run")).ended
        await store.queue.ack(claimed)
        await store.sweep()
        assert await store.runs.list_runs() == []

    async def test_g10_an_orphan_in_which_nothing_happened_for_long_is_ended(self, store: Store) -> None:
        """Its readers are told that it was lost; whoever wrote it is fenced. One that spoke lately is run again."""
        now = time.time()
        ages = {"old": limits.IDLE_OPEN + 60, "young": limits.IDLE_OPEN - 60}
        authors = {run: await Author.start(store, run) for run in ages}
        for run, age in ages.items():
            await authors[run].say(Chunk("data", 1, time=now - age))
        swept = await store.sweep()
        assert (swept.ended, swept.requeued) == (1, 1)
        assert (await must_claim(store.queue)).run == "young"
        head = await store.runs.get("old")
        assert (head.state, head.attempt, head.error and head.error.code) == ("lost", 2, "run_lost")
        assert decode_chunk((await read_all(store.logs, "old"))[-1][1]).error == head.error
        page = await store.logs.read("old", head.cursor_at(2), wait=WAIT)
        assert page.ended
        with pytest.raises(Fenced):
            await authors["old"].say("data")

    async def test_g9_a_waiting_worker_takes_a_lapsed_claim_over(self, make_store: StoreFactory) -> None:
        """By itself, in real time, soon after the lease."""
        async with make_store(time.monotonic) as store:
            await store.queue.put(meta())
            assert await store.queue.claim(QUEUES, "w1", lease=0.1, wait=0) is not None
            heir = await must_claim(store.queue, "w2", wait=WAIT)
            assert heir.crashes == 1

    async def test_g9_acknowledged_is_forgotten(self, store: Store, clock: ManualClock) -> None:
        """For good; acknowledging again does nothing; the log is not touched."""
        author = await Author.start(store)
        await store.queue.put(meta())
        claimed = await must_claim(store.queue)
        await author.say("complete")
        for _ in range(2):
            await store.queue.ack(claimed)
        clock.advance(LEASE * 2)
        assert await claim(store.queue) is None
        for call in (store.queue.renew(claimed), store.queue.release(claimed)):
            with pytest.raises(Fenced):
                await call
        assert (await store.runs.get("run")).state == "completed"

    async def test_g9_a_waiting_worker_wakes_on_the_keys_next(self, store: Store) -> None:
        """When the one before is acknowledged, and when it is dropped."""
        for number in range(3):
            await store.queue.put(meta(f"run-{number}", key="k"))
        held = await must_claim(store.queue)
        waiting = spawn(claim(store.queue, "w2", wait=WAIT), "claim")
        await turns(3)
        await store.queue.ack(held)
        taken = await waiting
        assert taken is not None
        assert taken.run == "run-1"
        waiting = spawn(claim(store.queue, "w2", wait=WAIT), "claim")
        await turns(3)
        await store.runs.drop("run-1")
        last = await waiting
        assert last is not None
        assert last.run == "run-2"
        with pytest.raises(Fenced):
            await store.queue.renew(taken)

    async def test_g9_dropping_a_run_that_waits_keeps_its_keys_order(self, store: Store) -> None:
        """The first may be ready, claimed or delayed."""
        for number in range(5):
            await store.queue.put(meta(f"run-{number}", key="k"))
        await store.runs.drop("run-1")
        held = await must_claim(store.queue)
        assert held.run == "run-0"
        await store.runs.drop("run-2")
        assert await claim(store.queue) is None
        await store.queue.release(held, delay=1000.0)
        await store.runs.drop("run-3")
        assert await claim(store.queue) is None
        await store.runs.drop("run-0")
        assert (await must_claim(store.queue)).run == "run-4"

    async def test_g9_a_run_may_be_put_again(self, store: Store) -> None:
        """After it was acknowledged or dropped; old claims stay fenced."""
        await store.queue.put(meta())
        old = await must_claim(store.queue)
        await store.queue.ack(old)
        await store.queue.put(meta())
        new = await must_claim(store.queue)
        assert new.crashes == 0
        with pytest.raises(Fenced):
            await store.queue.renew(old)
        await store.runs.drop("run")
        await store.queue.put(meta())
        assert (await must_claim(store.queue)).run == "run"

    async def test_g10_a_sweep_puts_open_runs_back_that_no_queue_holds(self, store: Store) -> None:
        """So that every started run ends: those that never began, and those that did."""
        started = meta("run-1", key="k", queue="q")
        await store.runs.create(started)
        await Author.start(store, "run-2", queue="q")
        assert (await store.sweep()).requeued == 2
        assert (await store.sweep()).requeued == 0
        claims = [await must_claim(store.queue, queues=["q"]) for _ in range(2)]
        assert {each.run for each in claims} == {"run-1", "run-2"}
        assert started in [each.meta for each in claims]

    async def test_g10_a_sweep_leaves_the_others(self, store: Store) -> None:
        """Those in the queue, claimed, delayed or behind their key, and those that have ended."""
        for number in range(4):
            await store.queue.put(meta(f"run-{number}", key="k" if number < 2 else None))
            await store.runs.create(meta(f"run-{number}", key="k" if number < 2 else None))
        claims = {each.run: each for each in [await must_claim(store.queue) for _ in range(2)]}
        assert set(claims) == {"run-0", "run-2"}
        await store.queue.release(claims["run-2"], delay=1000.0)
        await (await Author.start(store, "ended")).say("complete")
        await store.runs.create(meta("unstarted"))
        await store.runs.cancel_unstarted("unstarted", CANCELLED)
        await store.queue.put(meta("done", queue="q"))
        done = await must_claim(store.queue, queues=["q"])
        await (await Author.start(store, "done", queue="q")).say("complete")
        await store.queue.ack(done)
        for _ in range(2):
            swept = await store.sweep()
            assert (swept.requeued, swept.dropped) == (0, 0)
        assert len(await store.runs.list_runs()) == 7

    async def test_g9_what_a_sweep_puts_back_keeps_its_priority_and_its_time(self, store: Store) -> None:
        """As the run's log has them."""
        await store.runs.create(meta("low", priority="low"))
        await store.runs.create(meta("later", not_before=FAR))
        await store.runs.create(meta("high", priority="high"))
        assert (await store.sweep()).requeued == 3
        assert [(await must_claim(store.queue)).run for _ in range(2)] == ["high", "low"]
        assert await claim(store.queue) is None
        assert (await store.sweep()).requeued == 0

    async def test_g9_a_delayed_start_is_in_the_queue(self, store: Store) -> None:
        """Putting it again does not double it, a sweep leaves it, dropping its run forgets it."""
        for _ in range(2):
            await store.queue.put(meta("later", not_before=FAR))
        await store.queue.put(meta("later"))
        await store.runs.create(meta("later", not_before=FAR))
        assert (await store.sweep()).requeued == 0
        assert [entry.run for entry in await store.queue.list_entries()] == ["later"]
        assert await claim(store.queue) is None
        await store.runs.drop("later")
        assert await store.queue.list_entries() == []
        await store.queue.put(meta("later"))
        assert (await must_claim(store.queue)).run == "later"

    async def test_g9_a_delayed_start_that_is_cancelled_leaves_the_queue(self, store: Store) -> None:
        """At once: its time may be far."""
        await store.queue.put(meta("later", key="k", not_before=FAR))
        await store.runs.create(meta("later", key="k", not_before=FAR))
        assert await store.runs.cancel_unstarted("later", CANCELLED)
        assert await store.queue.list_entries() == []

    async def test_g9_entries_count_crashes_and_forget_what_has_ended(self, store: Store, clock: ManualClock) -> None:
        """A run leaves the queue when its claim is acknowledged."""
        author = await Author.start(store)
        await store.queue.put(meta())
        await must_claim(store.queue)
        await stand_still(store.queue, clock, LEASE * 1.6)
        held = await must_claim(store.queue, "w2")
        (entry,) = await store.queue.list_entries()
        assert (entry.crashes, entry.worker, entry.number) == (1, "w2", held.number)
        await author.say("complete")
        await store.queue.ack(held)
        assert await store.queue.list_entries() == []

    async def test_a_dropped_run_leaves_the_queue(self, store: Store) -> None:
        """It may wait or be claimed. Its record and logs go with it. Dropping again does nothing."""
        await Author.start(store)
        await store.queue.put(meta())
        await store.queue.put(meta("held"))
        await store.runs.create(meta("held"))
        held = [await must_claim(store.queue) for _ in range(2)][1]
        for _ in range(2):
            for run in ("run", "held"):
                await store.runs.drop(run)
        assert await store.queue.list_entries() == []
        assert await store.runs.list_runs() == []
        assert await claim(store.queue) is None
        with pytest.raises(Fenced):
            await store.queue.renew(held)

    async def test_a_log_without_a_run_is_no_run(self, store: Store) -> None:
        """No list shows it, and no sweep takes it for an orphan, or forgets it."""
        author = await Author.open(store.logs, "free")
        await author.say("data", "complete")
        await store.logs.create("open", LogSpec(policy="many"))
        assert await store.sweep() == SweepReport()
        assert await store.runs.list_runs() == []
        for call in (
            store.runs.get("free"),
            store.runs.heartbeat("free"),
            store.runs.cancel_unstarted("open", CANCELLED),
        ):
            with pytest.raises(LogNotFound):
                await call
        for log in ("free", "open"):
            await store.runs.drop(log)
            assert (await store.logs.info(log)).ended == (log == "free")

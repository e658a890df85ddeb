"""G9 and G10: the queue, and the sweep."""

from __future__ import annotations

import asyncio
import time

import msgspec
import pytest

from loom.model.errors import Fenced
from loom.model.ports import Store
from loom.tasks import TaskSet, cancel_and_wait, spawn
from loom.testing.author import Author
from loom.testing.clock import ManualClock, StoreFactory

from .kit import CANCELLED, LEASE, QUEUES, WAIT, Suite, claim, meta, must_claim, stand_still, turns


class QueueConformance(Suite):
    """What every store guarantees of its queue."""

    # --- G9 ----------------------------------------------------------------------------------------------------------

    async def test_g9_a_claim_carries_the_whole_meta(self, store: Store) -> None:
        """Putting precedes creating: whoever claims a run can create its log."""
        started = meta(
            input=msgspec.Raw(b'{"a":[1,2]}'), key="k", owner_lease=5.0, timeout=1.5, idle_timeout=2, ahead=3
        )
        await store.put(started)
        claimed = await must_claim(store, "w1")
        assert (claimed.meta, claimed.run, claimed.worker, claimed.crashes) == (started, "run", "w1", 0)
        assert (await store.create(claimed.meta)).meta == started

    async def test_g9_each_run_goes_to_one_worker(self, store: Store) -> None:
        """However many ask at once; putting a run again does not double it."""
        for _ in range(2):
            await asyncio.gather(*(store.put(meta(f"run-{number}")) for number in range(10)))
        claims = await asyncio.gather(*(claim(store, f"w{number}") for number in range(30)))
        assert sorted(each.run for each in claims if each) == sorted(f"run-{number}" for number in range(10))
        for number in range(10):
            await store.put(meta(f"run-{number}"))
        assert await claim(store) is None

    async def test_g9_one_worker_may_hold_many(self, store: Store) -> None:
        """Oldest first."""
        for number in range(5):
            await store.put(meta(f"run-{number}"))
        assert [(await must_claim(store)).run for _ in range(5)] == [f"run-{number}" for number in range(5)]

    async def test_g9_only_the_named_queues_are_looked_at(self, store: Store) -> None:
        """And all of them."""
        for queue in ("a", "b", "c"):
            await store.put(meta(f"run-{queue}", queue=queue))
        assert await claim(store, queues=["default"]) is None
        assert (await must_claim(store, queues=["c"])).run == "run-c"
        assert {(await must_claim(store, queues=["b", "a"])).run for _ in range(2)} == {"run-a", "run-b"}
        assert await claim(store, queues=["a", "b", "c"]) is None

    async def test_g9_a_waiting_worker_wakes_on_a_put(self, store: Store) -> None:
        """As many as there are runs; the others wait on."""
        assert await claim(store, wait=0.01) is None
        async with TaskSet() as tasks:
            waiting = {tasks.spawn(claim(store, f"w{number}", wait=WAIT), f"w{number}") for number in range(3)}
            for number in range(3):
                await turns(3)
                await store.put(meta(f"run-{number}"))
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                (claimed,) = (task.result() for task in done)
                assert claimed is not None
                assert claimed.run == f"run-{number}"

    @pytest.mark.parametrize("count", range(8))
    async def test_g9_no_put_is_lost_on_a_waiting_worker(self, store: Store, count: int) -> None:
        """Whenever it comes; the run goes to one of those that wait, the others wait on."""
        for number in range(5):
            waiting = [spawn(claim(store, worker, wait=WAIT), worker) for worker in ("w1", "w2")]
            await turns(count)
            await store.put(meta(f"run-{number}"))
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            await cancel_and_wait(*waiting)
            claims = [task.result() for task in waiting if not task.cancelled()]
            (claimed,) = [each for each in claims if each is not None]
            assert claimed.run == f"run-{number}"
            await store.ack(claimed)

    async def test_g9_a_claim_lapses_when_its_heartbeat_stands_still(self, store: Store, clock: ManualClock) -> None:
        """For its lease, as the store has seen it: then it is another's, counting a crash, and the first is fenced."""
        await store.put(meta())
        lost = await must_claim(store, "w1")
        assert await claim(store, "w2") is None
        await stand_still(store, clock, LEASE * 0.99)
        assert await claim(store, "w2") is None
        await stand_still(store, clock, LEASE * 0.02)
        heir = await must_claim(store, "w2")
        assert (heir.run, heir.worker, heir.crashes) == ("run", "w2", 1)
        assert heir.number > lost.number
        for call in (store.renew(lost), store.ack(lost), store.release(lost)):
            with pytest.raises(Fenced):
                await call
        await store.renew(heir)
        assert await claim(store, "w3") is None

    async def test_g9_a_worker_that_stood_still_keeps_its_claims(self, store: Store, clock: ManualClock) -> None:
        """Neither it nor another that stood still with it takes them over before it had time to renew them."""
        await store.put(meta())
        held = await must_claim(store, "w1")
        assert await claim(store, "w2") is None
        clock.advance(LEASE * 100)
        assert await claim(store, "w1") is None
        assert await claim(store, "w2") is None
        await stand_still(store, clock, LEASE * 0.4)
        assert await claim(store, "w1") is None
        assert await claim(store, "w2") is None
        await store.renew(held)

    async def test_g9_a_claim_that_its_living_worker_does_not_renew_comes_again(
        self, store: Store, clock: ManualClock
    ) -> None:
        """To that very worker too: it may be the only one."""
        await store.put(meta())
        lost = await must_claim(store, "w1")
        assert await claim(store, "w1") is None
        await stand_still(store, clock, LEASE * 1.1)
        again = await must_claim(store, "w1")
        assert again.crashes == 1
        assert again.number > lost.number

    async def test_g9_a_worker_is_fenced_from_its_own_earlier_claim(self, store: Store, clock: ManualClock) -> None:
        """The claim's number counts, not the worker's name alone."""
        await store.put(meta())
        before = await must_claim(store, "w1")
        await store.release(before)
        after = await must_claim(store, "w1")
        assert after.number > before.number
        for call in (store.renew(before), store.ack(before), store.release(before)):
            with pytest.raises(Fenced):
                await call
        await store.renew(after)

    async def test_g9_a_renewed_claim_stays(self, store: Store, clock: ManualClock) -> None:
        """As long as its heartbeat counts up."""
        await store.put(meta())
        held = await must_claim(store, "w1")
        for _ in range(10):
            assert await claim(store, "w2") is None
            clock.advance(LEASE * 0.9)
            await store.renew(held)
        assert await claim(store, "w2") is None
        await stand_still(store, clock, LEASE * 1.1)
        assert (await must_claim(store, "w2")).crashes == 1

    async def test_g9_claims_renewed_together_are_told_apart(self, store: Store, clock: ManualClock) -> None:
        """Whose are lost is told of each; the others stay."""
        for run in ("lost", "kept", "acked"):
            await store.put(meta(run))
        lost, kept, acked = [await must_claim(store, "w1") for _ in range(3)]
        await store.release(lost)
        await store.ack(acked)
        heir = await must_claim(store, "w2")
        assert await store.renew_all([lost, kept, acked]) == [False, True, False]
        assert await store.renew_all([]) == []
        for _ in range(3):
            assert await claim(store, "w3") is None
            clock.advance(LEASE * 0.9)
            assert await store.renew_all([kept, heir]) == [True, True]
        assert await claim(store, "w3") is None

    async def test_g9_each_lapse_counts_a_crash(self, store: Store, clock: ManualClock) -> None:
        """But a hand-over does not; numbers grow with each claim."""
        await store.put(meta())
        crashes, numbers = [], []
        for number in range(3):
            claimed = await must_claim(store, f"w{number}")
            await store.release(claimed)
            claimed = await must_claim(store, f"w{number}")
            crashes.append(claimed.crashes)
            numbers.append(claimed.number)
            assert await claim(store, "other") is None
            await stand_still(store, clock, LEASE * 1.1)
        assert crashes == [0, 1, 2]
        assert numbers == sorted(set(numbers))

    async def test_g9_leases_are_each_claims_own(self, store: Store, clock: ManualClock) -> None:
        """A long one outlasts a short one."""
        for run in ("long", "short"):
            await store.put(meta(run))
        for lease in (100.0, 1.0):
            assert await store.claim(QUEUES, "w1", lease=lease, wait=0) is not None
        assert await claim(store, "w2") is None
        await stand_still(store, clock, 1.1)
        assert (await must_claim(store, "w2")).run == "short"
        assert await claim(store, "w2") is None

    async def test_g9_a_lapsed_claim_does_not_wait_for_the_backlog(self, store: Store, clock: ManualClock) -> None:
        """A worker that never finds the queue empty takes it over all the same, before what was put later."""
        await store.put(meta("lost"))
        await must_claim(store, "w1")
        for number in range(20):
            await store.put(meta(f"later-{number:02}"))
        tenths = 0
        while (claimed := await must_claim(store, "w2")).run != "lost":
            await store.ack(claimed)
            clock.advance(LEASE / 10)
            tenths += 1
        assert 10 <= tenths <= 11

    async def test_g9_a_waiting_worker_takes_a_lapsed_claim_over(self, make_store: StoreFactory) -> None:
        """By itself, in real time, soon after the lease."""
        async with make_store(time.monotonic) as store:
            await store.put(meta())
            assert await store.claim(QUEUES, "w1", lease=0.1, wait=0) is not None
            heir = await must_claim(store, "w2", wait=WAIT)
            assert heir.crashes == 1

    @pytest.mark.parametrize("count", range(8))
    async def test_g9_a_claim_whose_reply_was_lost_comes_again(
        self, store: Store, clock: ManualClock, count: int
    ) -> None:
        """To the same worker, or after its lease to another."""
        for number in range(3):
            await store.put(meta(f"run-{number}"))
            claiming = spawn(claim(store, "w1", wait=WAIT), "claim")
            await turns(count)
            await cancel_and_wait(claiming)
            again = await claim(store, "w1")
            if again is None:
                assert await claim(store, "w2") is None
                await stand_still(store, clock, LEASE * 1.1)
                again = await must_claim(store, "w2")
            assert again.run == f"run-{number}"
            assert await claim(store, "w3") is None
            await store.ack(again)

    async def test_g9_acknowledged_is_forgotten(self, store: Store, clock: ManualClock) -> None:
        """For good; acknowledging again does nothing; the log is not touched."""
        author = await Author.start(store)
        await store.put(meta())
        claimed = await must_claim(store)
        await author.say("complete")
        for _ in range(2):
            await store.ack(claimed)
        clock.advance(LEASE * 2)
        assert await claim(store) is None
        for call in (store.renew(claimed), store.release(claimed)):
            with pytest.raises(Fenced):
                await call
        assert (await store.head("run")).state == "completed"

    async def test_g9_released_is_claimable_at_once(self, store: Store) -> None:
        """By whoever waits; no crash is counted."""
        await store.put(meta())
        held = await must_claim(store, "w1")
        waiting = spawn(claim(store, "w2", wait=WAIT), "claim")
        await turns(3)
        await store.release(held)
        taken = await waiting
        assert taken is not None
        assert (taken.run, taken.worker, taken.crashes) == ("run", "w2", 0)

    async def test_g9_released_with_a_delay_is_claimable_after_it(self, store: Store, clock: ManualClock) -> None:
        """Not before; others go meanwhile."""
        await store.put(meta("run-1"))
        await store.release(await must_claim(store), delay=1.0)
        assert await claim(store) is None
        await store.put(meta("run-2"))
        assert (await must_claim(store)).run == "run-2"
        assert await claim(store) is None
        clock.advance(1.0)
        taken = await must_claim(store, wait=WAIT)
        assert (taken.run, taken.crashes) == ("run-1", 0)

    async def test_g9_runs_of_one_key_go_one_at_a_time_in_order(self, store: Store, clock: ManualClock) -> None:
        """Over queues; the next is ready when the one before is acknowledged, not when it is released or lapses."""
        for number in range(4):
            await store.put(meta(f"run-{number}", key="k", queue=f"q{number % 2}"))
        both = ("q0", "q1")
        held = await must_claim(store, "w1", queues=both)
        assert held.run == "run-0"
        assert await claim(store, "w2", queues=both) is None
        await store.release(held)
        held = await must_claim(store, "w1", queues=both)
        assert held.run == "run-0"
        assert await claim(store, "w2", queues=both) is None
        await stand_still(store, clock, LEASE * 1.1)
        held = await must_claim(store, "w2", queues=both)
        assert held.run == "run-0"
        for number in range(1, 4):
            assert await claim(store, "w1", queues=both) is None
            await store.ack(held)
            held = await must_claim(store, "w1", queues=both)
            assert held.run == f"run-{number}"

    async def test_g9_a_delayed_run_holds_its_key(self, store: Store, clock: ManualClock) -> None:
        """Order within a key also outlasts a pause before a retry."""
        for number in range(2):
            await store.put(meta(f"run-{number}", key="k"))
        await store.release(await must_claim(store), delay=1.0)
        assert await claim(store) is None
        clock.advance(1.0)
        assert (await must_claim(store, wait=WAIT)).run == "run-0"

    async def test_g9_keys_are_of_one_actor(self, store: Store) -> None:
        """Different actors, different keys and runs without one do not wait for each other."""
        metas = [
            meta("run-1", key="k"),
            meta("run-2", key="k"),
            meta("run-3", key="l"),
            meta("run-4", "another", key="k"),
            meta("run-5"),
            meta("run-6"),
        ]
        for each in metas:
            await store.put(each)
        claimed = [await must_claim(store) for _ in range(5)]
        assert [each.run for each in claimed] == ["run-1", "run-3", "run-4", "run-5", "run-6"]
        assert await claim(store) is None

    async def test_g9_a_waiting_worker_wakes_on_the_keys_next(self, store: Store) -> None:
        """When the one before is acknowledged, and when it is dropped."""
        for number in range(3):
            await store.put(meta(f"run-{number}", key="k"))
        held = await must_claim(store)
        waiting = spawn(claim(store, "w2", wait=WAIT), "claim")
        await turns(3)
        await store.ack(held)
        taken = await waiting
        assert taken is not None
        assert taken.run == "run-1"
        waiting = spawn(claim(store, "w2", wait=WAIT), "claim")
        await turns(3)
        await store.drop("run-1")
        last = await waiting
        assert last is not None
        assert last.run == "run-2"
        with pytest.raises(Fenced):
            await store.renew(taken)

    async def test_g9_dropping_a_run_that_waits_keeps_its_keys_order(self, store: Store) -> None:
        """Whether the first is ready, claimed or delayed."""
        for number in range(5):
            await store.put(meta(f"run-{number}", key="k"))
        await store.drop("run-1")
        held = await must_claim(store)
        assert held.run == "run-0"
        await store.drop("run-2")
        assert await claim(store) is None
        await store.release(held, delay=1000.0)
        await store.drop("run-3")
        assert await claim(store) is None
        await store.drop("run-0")
        assert (await must_claim(store)).run == "run-4"

    async def test_g9_a_run_may_be_put_again(self, store: Store) -> None:
        """After it was acknowledged or dropped; old claims stay fenced."""
        await store.put(meta())
        old = await must_claim(store)
        await store.ack(old)
        await store.put(meta())
        new = await must_claim(store)
        assert new.crashes == 0
        with pytest.raises(Fenced):
            await store.renew(old)
        await store.drop("run")
        await store.put(meta())
        assert (await must_claim(store)).run == "run"

    # --- G10 ---------------------------------------------------------------------------------------------------------

    async def test_g10_a_sweep_puts_open_runs_back_that_no_queue_holds(self, store: Store) -> None:
        """So that every started run ends: those that never began, and those that did."""
        started = meta("run-1", key="k", queue="q")
        await store.create(started)
        await Author.start(store, "run-2", queue="q")
        assert (await store.sweep()).requeued == 2
        assert (await store.sweep()).requeued == 0
        claims = [await must_claim(store, queues=["q"]) for _ in range(2)]
        assert {each.run for each in claims} == {"run-1", "run-2"}
        assert started in [each.meta for each in claims]

    async def test_g10_a_sweep_leaves_the_others(self, store: Store) -> None:
        """Those in the queue, claimed, delayed or behind their key, and those that have ended."""
        for number in range(4):
            await store.put(meta(f"run-{number}", key="k" if number < 2 else None))
            await store.create(meta(f"run-{number}", key="k" if number < 2 else None))
        claims = {each.run: each for each in [await must_claim(store) for _ in range(2)]}
        assert set(claims) == {"run-0", "run-2"}
        await store.release(claims["run-2"], delay=1000.0)
        await (await Author.start(store, "ended")).say("complete")
        await store.create(meta("unstarted"))
        await store.end_unstarted("unstarted", CANCELLED)
        await store.put(meta("done", queue="q"))
        done = await must_claim(store, queues=["q"])
        await (await Author.start(store, "done", queue="q")).say("complete")
        await store.ack(done)
        for _ in range(2):
            swept = await store.sweep()
            assert (swept.requeued, swept.dropped) == (0, 0)
        assert len(await store.heads()) == 7

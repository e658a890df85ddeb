"""G9: claims, leases, keys."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from loom.model.errors import Fenced
from loom.model.ports import WorkQueue
from loom.tasks import TaskSet, cancel_and_wait, spawn
from loom.testing.clock import ManualClock

from .kit import LEASE, QUEUES, WAIT, Suite, claim, meta, must_claim, stand_still, turns


class ClaimConformance(Suite):
    """Guarantees of claims: each run goes to one worker at a time."""

    async def test_g9_each_run_goes_to_one_worker(self, queue: WorkQueue) -> None:
        """However many ask at once; putting a run again does not double it."""
        for _ in range(2):
            await asyncio.gather(*(queue.put(meta(f"run-{number}")) for number in range(10)))
        claims = await asyncio.gather(*(claim(queue, f"w{number}") for number in range(30)))
        assert sorted(each.run for each in claims if each) == sorted(f"run-{number}" for number in range(10))
        for number in range(10):
            await queue.put(meta(f"run-{number}"))
        assert await claim(queue) is None

    async def test_g9_one_worker_may_hold_many(self, queue: WorkQueue) -> None:
        """Oldest first."""
        for number in range(5):
            await queue.put(meta(f"run-{number}"))
        assert [(await must_claim(queue)).run for _ in range(5)] == [f"run-{number}" for number in range(5)]

    async def test_g9_only_the_named_queues_are_looked_at(self, queue: WorkQueue) -> None:
        """And all of them."""
        for name in ("a", "b", "c"):
            await queue.put(meta(f"run-{name}", queue=name))
        assert await claim(queue, queues=["default"]) is None
        assert (await must_claim(queue, queues=["c"])).run == "run-c"
        assert {(await must_claim(queue, queues=["b", "a"])).run for _ in range(2)} == {"run-a", "run-b"}
        assert await claim(queue, queues=["a", "b", "c"]) is None

    async def test_g9_a_waiting_worker_wakes_on_a_put(self, queue: WorkQueue) -> None:
        """As many as there are runs; the others wait on."""
        assert await claim(queue, wait=0.01) is None
        async with TaskSet() as tasks:
            waiting = {tasks.spawn(claim(queue, f"w{number}", wait=WAIT), f"w{number}") for number in range(3)}
            for number in range(3):
                await turns(3)
                await queue.put(meta(f"run-{number}"))
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                (claimed,) = (task.result() for task in done)
                assert claimed is not None
                assert claimed.run == f"run-{number}"

    @pytest.mark.parametrize("count", range(8))
    async def test_g9_no_put_is_lost_on_a_waiting_worker(self, queue: WorkQueue, count: int) -> None:
        """Whenever it comes; the run goes to one of those that wait, the others wait on."""
        for number in range(5):
            waiting = [spawn(claim(queue, worker, wait=WAIT), worker) for worker in ("w1", "w2")]
            await turns(count)
            await queue.put(meta(f"run-{number}"))
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            await cancel_and_wait(*waiting)
            claims = [task.result() for task in waiting if not task.cancelled()]
            (claimed,) = [each for each in claims if each is not None]
            assert claimed.run == f"run-{number}"
            await queue.ack(claimed)

    async def test_g9_a_claim_lapses_when_its_heartbeat_stands_still(
        self, queue: WorkQueue, clock: ManualClock
    ) -> None:
        """For its lease, as the store has seen it: then it is another's, counting a crash, and the first is fenced."""
        await queue.put(meta())
        lost = await must_claim(queue, "w1")
        assert await claim(queue, "w2") is None
        await stand_still(queue, clock, LEASE * 0.99)
        assert await claim(queue, "w2") is None
        await stand_still(queue, clock, LEASE * 0.02)
        heir = await must_claim(queue, "w2")
        assert (heir.run, heir.worker, heir.crashes) == ("run", "w2", 1)
        assert heir.number > lost.number
        for call in (queue.renew(lost), queue.ack(lost), queue.release(lost)):
            with pytest.raises(Fenced):
                await call
        await queue.renew(heir)
        assert await claim(queue, "w3") is None

    async def test_g9_a_worker_that_stood_still_keeps_its_claims(self, queue: WorkQueue, clock: ManualClock) -> None:
        """Neither it nor another that stood still with it takes them over before it had time to renew them."""
        await queue.put(meta())
        held = await must_claim(queue, "w1")
        assert await claim(queue, "w2") is None
        clock.advance(LEASE * 100)
        assert await claim(queue, "w1") is None
        assert await claim(queue, "w2") is None
        await stand_still(queue, clock, LEASE * 0.4)
        assert await claim(queue, "w1") is None
        assert await claim(queue, "w2") is None
        await queue.renew(held)

    async def test_g9_a_claim_that_its_living_worker_does_not_renew_comes_again(
        self, queue: WorkQueue, clock: ManualClock
    ) -> None:
        """To that very worker too: it may be the only one."""
        await queue.put(meta())
        lost = await must_claim(queue, "w1")
        assert await claim(queue, "w1") is None
        await stand_still(queue, clock, LEASE * 1.1)
        again = await must_claim(queue, "w1")
        assert again.crashes == 1
        assert again.number > lost.number

    async def test_g9_a_worker_is_fenced_from_its_own_earlier_claim(self, queue: WorkQueue, clock: ManualClock) -> None:
        """The claim's number counts, not the worker's name alone."""
        await queue.put(meta())
        before = await must_claim(queue, "w1")
        await queue.release(before)
        after = await must_claim(queue, "w1")
        assert after.number > before.number
        for call in (queue.renew(before), queue.ack(before), queue.release(before)):
            with pytest.raises(Fenced):
                await call
        await queue.renew(after)

    async def test_g9_a_renewed_claim_stays(self, queue: WorkQueue, clock: ManualClock) -> None:
        """As long as its heartbeat counts up."""
        await queue.put(meta())
        held = await must_claim(queue, "w1")
        for _ in range(10):
            assert await claim(queue, "w2") is None
            clock.advance(LEASE * 0.9)
            await queue.renew(held)
        assert await claim(queue, "w2") is None
        await stand_still(queue, clock, LEASE * 1.1)
        assert (await must_claim(queue, "w2")).crashes == 1

    async def test_g9_claims_renewed_together_are_told_apart(self, queue: WorkQueue, clock: ManualClock) -> None:
        """Whose are lost is told of each; the others stay."""
        for run in ("lost", "kept", "acked"):
            await queue.put(meta(run))
        lost, kept, acked = [await must_claim(queue, "w1") for _ in range(3)]
        await queue.release(lost)
        await queue.ack(acked)
        heir = await must_claim(queue, "w2")
        assert await queue.renew_all([lost, kept, acked]) == [False, True, False]
        assert await queue.renew_all([]) == []
        for _ in range(3):
            assert await claim(queue, "w3") is None
            clock.advance(LEASE * 0.9)
            assert await queue.renew_all([kept, heir]) == [True, True]
        assert await claim(queue, "w3") is None

    async def test_g9_each_lapse_counts_a_crash(self, queue: WorkQueue, clock: ManualClock) -> None:
        """But a hand-over does not; numbers grow with each claim."""
        await queue.put(meta())
        crashes, numbers = [], []
        for number in range(3):
            claimed = await must_claim(queue, f"w{number}")
            await queue.release(claimed)
            claimed = await must_claim(queue, f"w{number}")
            crashes.append(claimed.crashes)
            numbers.append(claimed.number)
            assert await claim(queue, "other") is None
            await stand_still(queue, clock, LEASE * 1.1)
        assert crashes == [0, 1, 2]
        assert numbers == sorted(set(numbers))

    async def test_g9_leases_are_each_claims_own(self, queue: WorkQueue, clock: ManualClock) -> None:
        """A long one outlasts a short one."""
        for run in ("long", "short"):
            await queue.put(meta(run))
        for lease in (100.0, 1.0):
            assert await queue.claim(QUEUES, "w1", lease=lease, wait=0) is not None
        assert await claim(queue, "w2") is None
        await stand_still(queue, clock, 1.1)
        assert (await must_claim(queue, "w2")).run == "short"
        assert await claim(queue, "w2") is None

    async def test_g9_a_lapsed_claim_does_not_wait_for_the_backlog(self, queue: WorkQueue, clock: ManualClock) -> None:
        """A worker that never finds the queue empty takes it over all the same, before what was put later."""
        await queue.put(meta("lost"))
        await must_claim(queue, "w1")
        for number in range(20):
            await queue.put(meta(f"later-{number:02}"))
        tenths = 0
        while (claimed := await must_claim(queue, "w2")).run != "lost":
            await queue.ack(claimed)
            clock.advance(LEASE / 10)
            tenths += 1
        assert 10 <= tenths <= 11

    @pytest.mark.parametrize("count", range(8))
    async def test_g9_a_claim_whose_reply_was_lost_comes_again(
        self, queue: WorkQueue, clock: ManualClock, count: int
    ) -> None:
        """To the same worker, or after its lease to another."""
        for number in range(3):
            await queue.put(meta(f"run-{number}"))
            claiming = spawn(claim(queue, "w1", wait=WAIT), "claim")
            await turns(count)
            await cancel_and_wait(claiming)
            again = await claim(queue, "w1")
            if again is None:
                assert await claim(queue, "w2") is None
                await stand_still(queue, clock, LEASE * 1.1)
                again = await must_claim(queue, "w2")
            assert again.run == f"run-{number}"
            assert await claim(queue, "w3") is None
            await queue.ack(again)

    async def test_g9_released_is_claimable_at_once(self, queue: WorkQueue) -> None:
        """By whoever waits; no crash is counted."""
        await queue.put(meta())
        held = await must_claim(queue, "w1")
        waiting = spawn(claim(queue, "w2", wait=WAIT), "claim")
        await turns(3)
        await queue.release(held)
        taken = await waiting
        assert taken is not None
        assert (taken.run, taken.worker, taken.crashes) == ("run", "w2", 0)

    async def test_g9_released_with_a_delay_is_claimable_after_it(self, queue: WorkQueue, clock: ManualClock) -> None:
        """Not before; others go meanwhile."""
        await queue.put(meta("run-1"))
        await queue.release(await must_claim(queue), delay=1.0)
        assert await claim(queue) is None
        await queue.put(meta("run-2"))
        assert (await must_claim(queue)).run == "run-2"
        assert await claim(queue) is None
        clock.advance(1.0)
        taken = await must_claim(queue, wait=WAIT)
        assert (taken.run, taken.crashes) == ("run-1", 0)

    async def test_g9_runs_of_one_key_go_one_at_a_time_in_order(self, queue: WorkQueue, clock: ManualClock) -> None:
        """Over queues; the next is ready when the one before is acknowledged, not when it is released or lapses."""
        for number in range(4):
            await queue.put(meta(f"run-{number}", key="k", queue=f"q{number % 2}"))
        both = ("q0", "q1")
        held = await must_claim(queue, "w1", queues=both)
        assert held.run == "run-0"
        assert await claim(queue, "w2", queues=both) is None
        await queue.release(held)
        held = await must_claim(queue, "w1", queues=both)
        assert held.run == "run-0"
        assert await claim(queue, "w2", queues=both) is None
        await stand_still(queue, clock, LEASE * 1.1)
        held = await must_claim(queue, "w2", queues=both)
        assert held.run == "run-0"
        for number in range(1, 4):
            assert await claim(queue, "w1", queues=both) is None
            await queue.ack(held)
            held = await must_claim(queue, "w1", queues=both)
            assert held.run == f"run-{number}"

    async def test_g9_a_delayed_run_holds_its_key(self, queue: WorkQueue, clock: ManualClock) -> None:
        """Order within a key also outlasts a pause before a retry."""
        for number in range(2):
            await queue.put(meta(f"run-{number}", key="k"))
        await queue.release(await must_claim(queue), delay=1.0)
        assert await claim(queue) is None
        clock.advance(1.0)
        assert (await must_claim(queue, wait=WAIT)).run == "run-0"

    async def test_g9_keys_are_of_one_actor(self, queue: WorkQueue) -> None:
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
            await queue.put(each)
        claimed = [await must_claim(queue) for _ in range(5)]
        assert [each.run for each in claimed] == ["run-1", "run-3", "run-4", "run-5", "run-6"]
        assert await claim(queue) is None

    async def test_g9_a_claim_carries_the_whole_meta(self, queue: WorkQueue) -> None:
        """Putting precedes creating: a claim is enough to create the run."""
        started = meta(
            input=msgspec.Raw(b'{"a":[1,2]}'),
            key="k",
            owner_lease=5.0,
            timeout=1.5,
            idle_timeout=2,
            ahead=3,
            labels={"user": "1"},
            parent="p",
            root="r",
        )
        await queue.put(started)
        claimed = await must_claim(queue, "w1")
        assert (claimed.meta, claimed.run, claimed.worker, claimed.crashes) == (started, "run", "w1", 0)

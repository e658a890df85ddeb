"""G9: who goes first. Priorities, delayed starts, actors left out, claims by force; and what the queue shows."""

from __future__ import annotations

import asyncio
import time

import pytest
from msgspec.structs import replace

from loom.model import limits
from loom.model.errors import Conflict, Fenced
from loom.model.names import PUBLISHED
from loom.model.ports import WorkQueue
from loom.model.priority import PRIORITIES, SHARES, order
from loom.model.run import Claim, Entry
from loom.tasks import spawn
from loom.testing.clock import ManualClock

from .kit import FAR, LEASE, WAIT, Suite, claim, meta, must_claim, stand_still, turns

LONGEST = 21
"""Claims until each priority has been looked at first."""


class OrderConformance(Suite):
    """Guarantees of the order of claims."""

    async def test_g9_priorities_go_in_their_shares(self, queue: WorkQueue) -> None:
        """Which is looked at first says `order` of the claims handed out; looks that found nothing do not count."""
        for number in range(20):
            for priority in PRIORITIES:
                await queue.put(meta(f"{priority}-{number:02}", priority=priority))
        for given in range(60):
            assert await claim(queue, queues=["nobody's"]) is None
            left = {entry.priority for entry in await queue.list_entries(place="ready")}
            expected = next(priority for priority in order(given) if priority in left)
            assert (await must_claim(queue)).meta.priority == expected

    async def test_g9_within_a_priority_oldest_first(self, queue: WorkQueue) -> None:
        """Over all the queues that a worker asks."""
        for number in range(12):
            priority = PRIORITIES[number % 3]
            await queue.put(meta(f"{number:02}", priority=priority, queue=f"q{number % 2}"))
        claims = [await must_claim(queue, queues=["q1", "q0"]) for _ in range(12)]
        for priority in PRIORITIES:
            runs = [each.run for each in claims if each.meta.priority == priority]
            assert runs == sorted(runs)

    async def test_g9_no_priority_is_starved(self, queue: WorkQueue) -> None:
        """However many of the others come on, and also for whoever gets only every second claim."""
        for number in range(40):
            await queue.put(meta(f"high-{number:02}", priority="high", queue="both"))
        await queue.put(meta("low", priority="low", queue="both"))
        for number in range(40):
            await queue.put(meta(f"other-{number:02}", priority="high", queue="other"))
        claims = []
        for _ in range(LONGEST):
            claims.append(await must_claim(queue, queues=["both"]))
            await must_claim(queue, "w2", queues=["other"])
        assert "low" in [each.run for each in claims]
        assert len(SHARES) <= LONGEST

    async def test_g9_a_lapsed_claim_goes_by_its_priority(self, queue: WorkQueue, clock: ManualClock) -> None:
        """As one that was never claimed."""
        await queue.put(meta("low", priority="low"))
        await must_claim(queue)
        await queue.put(meta("high", priority="high"))
        await stand_still(queue, clock, LEASE * 1.6)
        assert [(await must_claim(queue)).run for _ in range(2)] == ["high", "low"]

    async def test_g9_a_keys_line_goes_by_order_whatever_the_priorities(self, queue: WorkQueue) -> None:
        """What is behind is not ready, be it urgent."""
        await queue.put(meta("first", key="k", priority="low"))
        await queue.put(meta("second", key="k", priority="high"))
        held = await must_claim(queue)
        assert held.run == "first"
        assert await claim(queue) is None
        await queue.ack(held)
        assert (await must_claim(queue)).run == "second"

    async def test_g9_a_delayed_start_waits_for_its_time(self, queue: WorkQueue) -> None:
        """Others go meanwhile; one whose time has passed is put at once."""
        await queue.put(meta("later", not_before=FAR))
        await queue.put(meta("passed", not_before=1.0))
        await queue.put(meta("now"))
        assert [(await must_claim(queue)).run for _ in range(2)] == ["passed", "now"]
        assert await claim(queue) is None

    async def test_g9_a_waiting_worker_wakes_for_a_delayed_start(self, queue: WorkQueue) -> None:
        """In time, whether it was put before or while the worker waits."""
        for number in range(2):
            waiting = spawn(claim(queue, wait=WAIT), "claim")
            await turns(3 * number)
            due = time.time() + 0.05
            await queue.put(meta(f"run-{number}", not_before=due))
            claimed = await waiting
            assert isinstance(claimed, Claim)
            assert claimed.run == f"run-{number}"
            assert due - 0.01 <= time.time() <= due + limits.OBSERVE + 1.0

    async def test_g9_a_delayed_start_joins_its_keys_line_when_its_time_comes(self, queue: WorkQueue) -> None:
        """Until then it holds up nobody; then it waits for its turn."""
        due = time.time() + 0.2
        await queue.put(meta("later", key="k", not_before=due))
        await queue.put(meta("now", key="k"))
        held = await must_claim(queue)
        assert held.run == "now"
        await queue.put(meta("soon", key="k"))
        assert await claim(queue, wait=0.5) is None
        assert time.time() > due
        await queue.ack(held)
        runs = []
        for _ in range(2):
            held = await must_claim(queue)
            runs.append(held.run)
            assert await claim(queue) is None
            await queue.ack(held)
        assert runs == ["soon", "later"]

    async def test_g9_a_claim_leaves_out_actors(self, queue: WorkQueue) -> None:
        """Those behind them go, in order; the others' own order stays."""
        for number in range(6):
            await queue.put(meta(f"run-{number}", ("busy", "free", "other")[number % 3]))
        without = ["busy", "nobody"]
        assert [(await must_claim(queue, exclude=without)).run for _ in range(2)] == ["run-1", "run-2"]
        assert (await must_claim(queue, exclude=["free"])).run == "run-0"
        assert [(await must_claim(queue, exclude=without)).run for _ in range(2)] == ["run-4", "run-5"]
        assert await claim(queue, exclude=without) is None
        assert (await must_claim(queue)).run == "run-3"

    async def test_g9_a_waiting_claim_leaves_them_out_too(self, queue: WorkQueue) -> None:
        """Only what it may take wakes it for good."""
        waiting = spawn(claim(queue, wait=WAIT, exclude={"busy"}), "claim")
        await turns(3)
        await queue.put(meta("run-1", "busy"))
        await turns(3)
        await queue.put(meta("run-2", "free"))
        claimed = await waiting
        assert isinstance(claimed, Claim)
        assert claimed.run == "run-2"

    async def test_g9_a_lapsed_claim_of_an_actor_left_out_waits(self, queue: WorkQueue, clock: ManualClock) -> None:
        """For whoever may take it."""
        await queue.put(meta("run", "busy"))
        await must_claim(queue)
        await stand_still(queue, clock, LEASE * 1.6)
        assert await claim(queue, "w2", exclude=["busy"]) is None
        assert (await must_claim(queue, "w2")).crashes == 1

    async def test_g9_entries_tell_where_each_run_is(self, queue: WorkQueue) -> None:
        """In the order of putting, delayed starts last."""
        await queue.put(meta("later", not_before=FAR, queue="q"))
        await queue.put(meta("sooner", not_before=FAR - 1))
        await queue.put(meta("leased", key="k"))
        held = await must_claim(queue)
        await queue.put(meta("behind", key="k", priority="high"))
        await queue.put(meta("resting"))
        rested = await must_claim(queue)
        await queue.release(rested, delay=1000.0)
        await queue.put(meta("ready", "other", priority="low", queue="q"))
        common = Entry(run="", actor="actor", queue="default", place="ready", created=1.0)
        expected = [
            replace(common, run="leased", key="k", place="leased", worker="w1", number=held.number),
            replace(common, run="behind", key="k", place="behind", priority="high"),
            replace(common, run="resting", place="delayed", number=rested.number),
            replace(common, run="ready", actor="other", queue="q", priority="low"),
            replace(common, run="sooner", place="delayed", not_before=FAR - 1),
            replace(common, run="later", queue="q", place="delayed", not_before=FAR),
        ]
        assert await queue.list_entries() == expected
        assert await queue.list_entries(queue="q") == [expected[3], expected[5]]
        assert await queue.list_entries(place="delayed") == [expected[2], expected[4], expected[5]]
        assert await queue.list_entries(queue="q", place="delayed", limit=1) == [expected[5]]
        assert await queue.list_entries(limit=5) == expected[:5]
        assert await queue.list_entries(queue="nobody's") == []

    async def test_g9_entries_are_bounded(self, queue: WorkQueue) -> None:
        """A hundred, unless more are asked for."""
        await asyncio.gather(*(queue.put(meta(f"run-{number}")) for number in range(110)))
        assert len(await queue.list_entries()) == 100
        assert len(await queue.list_entries(limit=0)) == 1
        assert len(await queue.list_entries(limit=10**9)) == 110

    async def test_g9_an_entry_whose_holder_stands_still_is_claimed(self, queue: WorkQueue, clock: ManualClock) -> None:
        """As any claim that lapsed: the publisher is taken for dead, and fenced from then on."""
        held = await queue.force_claim(meta(queue=PUBLISHED), "p1", lease=LEASE)
        assert await claim(queue, queues=[PUBLISHED]) is None
        for _ in range(3):
            clock.advance(LEASE * 0.4)
            await queue.renew(held)
            assert await claim(queue, queues=[PUBLISHED]) is None
        await stand_still(queue, clock, LEASE * 1.6)
        found = await must_claim(queue, "w1", queues=[PUBLISHED])
        assert (found.run, found.crashes, found.meta) == ("run", 1, held.meta)
        with pytest.raises(Fenced):
            await queue.renew(held)

    async def test_g9_a_run_of_workers_is_not_held(self, queue: WorkQueue) -> None:
        """What another queue has stays as it is."""
        await queue.put(meta())
        with pytest.raises(Conflict):
            await queue.force_claim(meta(queue=PUBLISHED), "p1", lease=LEASE)
        claimed = await must_claim(queue)
        with pytest.raises(Conflict):
            await queue.force_claim(meta(queue=PUBLISHED), "p1", lease=LEASE)
        await queue.renew(claimed)

    async def test_g9_whoever_holds_an_entry_takes_it_over(self, queue: WorkQueue) -> None:
        """At once and by force: from who holds it, and where nobody has it. The last one counts."""
        started = meta(queue=PUBLISHED)
        first = await queue.force_claim(started, "p1", lease=LEASE)
        second = await queue.force_claim(started, "p2", lease=LEASE)
        third = await queue.force_claim(started, "p2", lease=LEASE)
        assert first.number < second.number < third.number
        for old in (first, second):
            for call in (queue.renew(old), queue.ack(old), queue.release(old)):
                with pytest.raises(Fenced):
                    await call
        await queue.release(third)
        last = await queue.force_claim(started, "p3", lease=LEASE)
        assert await claim(queue, queues=[PUBLISHED]) is None
        await queue.renew(last)

"""G9: who goes first. Priorities, delayed starts, actors left out; and what the queue shows of itself."""

from __future__ import annotations

import asyncio
import time

from msgspec.structs import replace

from loom.model import limits
from loom.model.ports import Store
from loom.model.priority import PRIORITIES, SHARES, order
from loom.model.run import Claim, Entry
from loom.tasks import spawn
from loom.testing.author import Author
from loom.testing.clock import ManualClock

from .kit import CANCELLED, LEASE, WAIT, Suite, claim, meta, must_claim, stand_still, turns

LONGEST = 21
"""Claims until each priority has been looked at first."""

FAR = 1e10
"""A time that does not come, in Unix seconds."""


class OrderConformance(Suite):
    """What every store guarantees of who goes first."""

    # --- priorities --------------------------------------------------------------------------------------------------

    async def test_g9_priorities_go_in_their_shares(self, store: Store) -> None:
        """Which is looked at first says `order` of the claims handed out; looks that found nothing do not count."""
        for number in range(20):
            for priority in PRIORITIES:
                await store.put(meta(f"{priority}-{number:02}", priority=priority))
        for given in range(60):
            assert await claim(store, queues=["nobody's"]) is None
            left = {entry.priority for entry in await store.entries(place="ready")}
            expected = next(priority for priority in order(given) if priority in left)
            assert (await must_claim(store)).meta.priority == expected

    async def test_g9_within_a_priority_oldest_first(self, store: Store) -> None:
        """Over all the queues that a worker asks."""
        for number in range(12):
            priority = PRIORITIES[number % 3]
            await store.put(meta(f"{number:02}", priority=priority, queue=f"q{number % 2}"))
        claims = [await must_claim(store, queues=["q1", "q0"]) for _ in range(12)]
        for priority in PRIORITIES:
            runs = [each.run for each in claims if each.meta.priority == priority]
            assert runs == sorted(runs)

    async def test_g9_no_priority_is_starved(self, store: Store) -> None:
        """However many of the others come on, and also for whoever gets only every second claim."""
        for number in range(40):
            await store.put(meta(f"high-{number:02}", priority="high", queue="both"))
        await store.put(meta("low", priority="low", queue="both"))
        for number in range(40):
            await store.put(meta(f"other-{number:02}", priority="high", queue="other"))
        claims = []
        for _ in range(LONGEST):
            claims.append(await must_claim(store, queues=["both"]))
            await must_claim(store, "w2", queues=["other"])
        assert "low" in [each.run for each in claims]
        assert len(SHARES) <= LONGEST

    async def test_g9_a_lapsed_claim_goes_by_its_priority(self, store: Store, clock: ManualClock) -> None:
        """As one that was never claimed."""
        await store.put(meta("low", priority="low"))
        await must_claim(store)
        await store.put(meta("high", priority="high"))
        await stand_still(store, clock, LEASE * 1.6)
        assert [(await must_claim(store)).run for _ in range(2)] == ["high", "low"]

    async def test_g9_a_keys_line_goes_by_order_whatever_the_priorities(self, store: Store) -> None:
        """What is behind is not ready, be it urgent."""
        await store.put(meta("first", key="k", priority="low"))
        await store.put(meta("second", key="k", priority="high"))
        held = await must_claim(store)
        assert held.run == "first"
        assert await claim(store) is None
        await store.ack(held)
        assert (await must_claim(store)).run == "second"

    async def test_g9_what_a_sweep_puts_back_keeps_its_priority_and_its_time(self, store: Store) -> None:
        """As the run's log has them."""
        await store.create(meta("low", priority="low"))
        await store.create(meta("later", not_before=FAR))
        await store.create(meta("high", priority="high"))
        assert (await store.sweep()).requeued == 3
        assert [(await must_claim(store)).run for _ in range(2)] == ["high", "low"]
        assert await claim(store) is None
        assert (await store.sweep()).requeued == 0

    # --- delayed starts ----------------------------------------------------------------------------------------------

    async def test_g9_a_delayed_start_waits_for_its_time(self, store: Store) -> None:
        """Others go meanwhile; one whose time has passed is put at once."""
        await store.put(meta("later", not_before=FAR))
        await store.put(meta("passed", not_before=1.0))
        await store.put(meta("now"))
        assert [(await must_claim(store)).run for _ in range(2)] == ["passed", "now"]
        assert await claim(store) is None

    async def test_g9_a_waiting_worker_wakes_for_a_delayed_start(self, store: Store) -> None:
        """In time, whether it was put before or while the worker waits."""
        for number in range(2):
            waiting = spawn(claim(store, wait=WAIT), "claim")
            await turns(3 * number)
            due = time.time() + 0.05
            await store.put(meta(f"run-{number}", not_before=due))
            claimed = await waiting
            assert isinstance(claimed, Claim)
            assert claimed.run == f"run-{number}"
            assert due - 0.01 <= time.time() <= due + limits.OBSERVE + 1.0

    async def test_g9_a_delayed_start_joins_its_keys_line_when_its_time_comes(self, store: Store) -> None:
        """Until then it holds up nobody; then it waits for its turn."""
        due = time.time() + 0.2
        await store.put(meta("later", key="k", not_before=due))
        await store.put(meta("now", key="k"))
        held = await must_claim(store)
        assert held.run == "now"
        await store.put(meta("soon", key="k"))
        assert await claim(store, wait=0.5) is None
        assert time.time() > due
        await store.ack(held)
        runs = []
        for _ in range(2):
            held = await must_claim(store)
            runs.append(held.run)
            assert await claim(store) is None
            await store.ack(held)
        assert runs == ["soon", "later"]

    async def test_g9_a_delayed_start_is_in_the_queue(self, store: Store) -> None:
        """Putting it again does not double it, a sweep leaves it, dropping its run forgets it."""
        for _ in range(2):
            await store.put(meta("later", not_before=FAR))
        await store.put(meta("later"))
        await store.create(meta("later", not_before=FAR))
        assert (await store.sweep()).requeued == 0
        assert [entry.run for entry in await store.entries()] == ["later"]
        assert await claim(store) is None
        await store.drop("later")
        assert await store.entries() == []
        await store.put(meta("later"))
        assert (await must_claim(store)).run == "later"

    async def test_g9_a_delayed_start_that_is_cancelled_leaves_the_queue(self, store: Store) -> None:
        """At once: its time may be far."""
        await store.put(meta("later", key="k", not_before=FAR))
        await store.create(meta("later", key="k", not_before=FAR))
        assert await store.end_unstarted("later", CANCELLED)
        assert await store.entries() == []

    # --- actors that are left out ------------------------------------------------------------------------------------

    async def test_g9_a_claim_leaves_out_actors(self, store: Store) -> None:
        """Those behind them go, in order; the others' own order stays."""
        for number in range(6):
            await store.put(meta(f"run-{number}", ("busy", "free", "other")[number % 3]))
        without = ["busy", "nobody"]
        assert [(await must_claim(store, without=without)).run for _ in range(2)] == ["run-1", "run-2"]
        assert (await must_claim(store, without=["free"])).run == "run-0"
        assert [(await must_claim(store, without=without)).run for _ in range(2)] == ["run-4", "run-5"]
        assert await claim(store, without=without) is None
        assert (await must_claim(store)).run == "run-3"

    async def test_g9_a_waiting_claim_leaves_them_out_too(self, store: Store) -> None:
        """Only what it may take wakes it for good."""
        waiting = spawn(claim(store, wait=WAIT, without={"busy"}), "claim")
        await turns(3)
        await store.put(meta("run-1", "busy"))
        await turns(3)
        await store.put(meta("run-2", "free"))
        claimed = await waiting
        assert isinstance(claimed, Claim)
        assert claimed.run == "run-2"

    async def test_g9_a_lapsed_claim_of_an_actor_left_out_waits(self, store: Store, clock: ManualClock) -> None:
        """For whoever may take it."""
        await store.put(meta("run", "busy"))
        await must_claim(store)
        await stand_still(store, clock, LEASE * 1.6)
        assert await claim(store, "w2", without=["busy"]) is None
        assert (await must_claim(store, "w2")).crashes == 1

    # --- what is shown -----------------------------------------------------------------------------------------------

    async def test_g9_entries_tell_where_each_run_is(self, store: Store) -> None:
        """In the order of putting, delayed starts last."""
        await store.put(meta("later", not_before=FAR, queue="q"))
        await store.put(meta("sooner", not_before=FAR - 1))
        await store.put(meta("leased", key="k"))
        held = await must_claim(store)
        await store.put(meta("behind", key="k", priority="high"))
        await store.put(meta("resting"))
        rested = await must_claim(store)
        await store.release(rested, delay=1000.0)
        await store.put(meta("ready", "other", priority="low", queue="q"))
        common = Entry(run="", actor="actor", queue="default", place="ready", created=1.0)
        expected = [
            replace(common, run="leased", key="k", place="leased", worker="w1", number=held.number),
            replace(common, run="behind", key="k", place="behind", priority="high"),
            replace(common, run="resting", place="delayed", number=rested.number),
            replace(common, run="ready", actor="other", queue="q", priority="low"),
            replace(common, run="sooner", place="delayed", not_before=FAR - 1),
            replace(common, run="later", queue="q", place="delayed", not_before=FAR),
        ]
        assert await store.entries() == expected
        assert await store.entries(queue="q") == [expected[3], expected[5]]
        assert await store.entries(place="delayed") == [expected[2], expected[4], expected[5]]
        assert await store.entries(queue="q", place="delayed", limit=1) == [expected[5]]
        assert await store.entries(limit=5) == expected[:5]
        assert await store.entries(queue="nobody's") == []

    async def test_g9_entries_count_crashes_and_forget_what_has_ended(self, store: Store, clock: ManualClock) -> None:
        """A run leaves the queue when its claim is acknowledged."""
        author = await Author.start(store)
        await store.put(meta())
        await must_claim(store)
        await stand_still(store, clock, LEASE * 1.6)
        held = await must_claim(store, "w2")
        (entry,) = await store.entries()
        assert (entry.crashes, entry.worker, entry.number) == (1, "w2", held.number)
        await author.say("complete")
        await store.ack(held)
        assert await store.entries() == []

    async def test_g9_entries_are_bounded(self, store: Store) -> None:
        """A hundred, unless more are asked for."""
        await asyncio.gather(*(store.put(meta(f"run-{number}")) for number in range(110)))
        assert len(await store.entries()) == 100
        assert len(await store.entries(limit=0)) == 1
        assert len(await store.entries(limit=10**9)) == 110

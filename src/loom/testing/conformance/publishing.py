"""What runs of publishers ask of a store, and how long runs and chunks are kept: held entries, orphans, retention."""

from __future__ import annotations

import time

import pytest

from loom.model import limits
from loom.model.chunk import Chunk
from loom.model.errors import Conflict, CursorExpired, Fenced, LogNotFound
from loom.model.ports import Store
from loom.model.run import PUBLISHED
from loom.testing.author import Author, read_all
from loom.testing.clock import ManualClock
from loom.wire.json import decode_chunk

from .kit import LEASE, WAIT, Suite, claim, meta, must_claim, stand_still


class PublishingConformance(Suite):
    """What every store guarantees of entries that their writer holds, and of what is kept."""

    # --- a held entry ------------------------------------------------------------------------------------------------

    async def test_g9_an_entry_that_is_held_is_nobody_elses(self, store: Store) -> None:
        """It is put and claimed in one act."""
        held = await store.seize(meta(queue=PUBLISHED), "p1", lease=LEASE)
        assert (held.run, held.worker, held.crashes, held.meta.published) == ("run", "p1", 0, True)
        assert await claim(store, queues=[PUBLISHED]) is None
        await store.create(held.meta)
        assert (await store.sweep()).requeued == 0
        await store.renew(held)
        await store.ack(held)
        assert await claim(store, queues=[PUBLISHED]) is None

    async def test_g9_whoever_holds_an_entry_takes_it_over(self, store: Store) -> None:
        """At once and by force: from who holds it, and where nobody has it. The last one counts."""
        started = meta(queue=PUBLISHED)
        first = await store.seize(started, "p1", lease=LEASE)
        second = await store.seize(started, "p2", lease=LEASE)
        third = await store.seize(started, "p2", lease=LEASE)
        assert first.number < second.number < third.number
        for old in (first, second):
            for call in (store.renew(old), store.ack(old), store.release(old)):
                with pytest.raises(Fenced):
                    await call
        await store.release(third)
        last = await store.seize(started, "p3", lease=LEASE)
        assert await claim(store, queues=[PUBLISHED]) is None
        await store.renew(last)
        await store.drop("run")
        with pytest.raises(Fenced):
            await store.renew(last)

    async def test_g9_an_entry_whose_holder_stands_still_is_claimed(self, store: Store, clock: ManualClock) -> None:
        """As any claim that lapsed: the publisher is taken for dead, and fenced from then on."""
        held = await store.seize(meta(queue=PUBLISHED), "p1", lease=LEASE)
        assert await claim(store, queues=[PUBLISHED]) is None
        for _ in range(3):
            clock.advance(LEASE * 0.4)
            await store.renew(held)
            assert await claim(store, queues=[PUBLISHED]) is None
        await stand_still(store, clock, LEASE * 1.6)
        found = await must_claim(store, "w1", queues=[PUBLISHED])
        assert (found.run, found.crashes, found.meta) == ("run", 1, held.meta)
        with pytest.raises(Fenced):
            await store.renew(held)

    async def test_g9_a_run_of_workers_is_not_held(self, store: Store) -> None:
        """What another queue has stays as it is."""
        await store.put(meta())
        with pytest.raises(Conflict):
            await store.seize(meta(queue=PUBLISHED), "p1", lease=LEASE)
        claimed = await must_claim(store)
        with pytest.raises(Conflict):
            await store.seize(meta(queue=PUBLISHED), "p1", lease=LEASE)
        await store.renew(claimed)

    async def test_g10_a_published_run_whose_entry_was_lost_is_found(self, store: Store) -> None:
        """It is put back where publishers' entries are, free to be claimed."""
        await Author.start(store, queue=PUBLISHED)
        assert (await store.sweep()).requeued == 1
        assert (await must_claim(store, queues=[PUBLISHED])).run == "run"

    # --- how long a run is kept --------------------------------------------------------------------------------------

    async def test_an_ended_run_is_kept_for_its_own_retention(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What its start says comes before what the store does by default."""
        monkeypatch.setattr(limits, "LEAST_RETENTION", 0.0)
        for run, retention in (("brief", 0.0), ("long", 1e9), ("plain", None)):
            await (await Author.start(store, run, retention=retention)).say("complete")
        await Author.start(store, "open", retention=0.0)
        await store.sweep()
        assert {head.meta.run for head in await store.heads()} == {"long", "plain", "open"}
        with pytest.raises(LogNotFound):
            await store.head("brief")

    async def test_an_ended_run_is_kept_until_who_waited_for_it_has_read_it(self, store: Store) -> None:
        """Whatever its retention: its result is of no use where nobody can read it."""
        claims = []
        for run, retention in (("none", 0.0), ("brief", limits.LEAST_RETENTION / 2)):
            await store.put(meta(run, retention=retention))
            claims.append(await must_claim(store))
            await (await Author.start(store, run, retention=retention)).say("data", "complete")
        for claimed in claims:
            await store.ack(claimed)
        await store.sweep()
        for run in ("none", "brief"):
            assert (await store.head(run)).state == "completed"
            assert [decode_chunk(line).type for _, line in await read_all(store, run)] == ["start", "data", "complete"]

    async def test_retention_waits_for_the_acknowledgement(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        """A run that its queue still holds is not dropped."""
        monkeypatch.setattr(limits, "LEAST_RETENTION", 0.0)
        await store.put(meta(retention=0.0))
        claimed = await must_claim(store)
        await (await Author.start(store, retention=0.0)).say("complete")
        await store.sweep()
        assert (await store.head("run")).ended
        await store.ack(claimed)
        await store.sweep()
        assert await store.heads() == []

    async def test_g10_an_orphan_in_which_nothing_happened_for_long_is_ended(self, store: Store) -> None:
        """Its readers are told that it was lost; whoever wrote it is fenced. One that spoke lately is run again."""
        now = time.time()
        ages = {"old": limits.IDLE_OPEN + 60, "young": limits.IDLE_OPEN - 60}
        authors = {run: await Author.start(store, run) for run in ages}
        for run, age in ages.items():
            await authors[run].say(Chunk("data", 1, time=now - age))
        swept = await store.sweep()
        assert (swept.ended, swept.requeued) == (1, 1)
        assert (await must_claim(store)).run == "young"
        head = await store.head("old")
        assert (head.state, head.attempt, head.error and head.error.code) == ("lost", 2, "run_lost")
        assert decode_chunk((await read_all(store, "old"))[-1][1]).error == head.error
        page = await store.read("old", head.cursor_at(2), wait=WAIT)
        assert page.ended
        with pytest.raises(Fenced):
            await authors["old"].say("data")

    # --- how much of a log is kept -----------------------------------------------------------------------------------

    async def test_a_fence_tells_how_much_a_log_holds(self, store: Store) -> None:
        """The bytes of its chunks' lines; what was trimmed no longer counts."""
        author = await Author.start(store)
        for _ in range(4):
            await author.say("data", "data")
        lines = await read_all(store, "run")
        size = sum(len(line) + 1 for _, line in lines)
        assert (await store.fence("run", "another")).size == size
        assert await store.trim("run", 6) == 6
        kept = sum(len(line) + 1 for cursor, line in lines if cursor.seq >= 6)
        assert (await store.fence("run", "a third")).size == kept
        assert (await store.fence("run", "a third")).size == kept

    async def test_a_fence_of_an_empty_log(self, store: Store) -> None:
        """Holds nothing."""
        await store.create(meta())
        assert (await store.fence("run", "token")).size == 0

    async def test_g6_a_log_that_is_trimmed_as_it_grows(self, store: Store) -> None:
        """First and tail of the head hold at every step; a reader that kept up goes on, one that lags is told."""
        author = await Author.start(store)
        begin = (await store.head("run")).cursor_at(1)
        cursor = begin
        for turn in range(1, 30):
            await author.say("data", "data")
            page = await store.read("run", cursor)
            assert [where.seq for where, _ in page.lines()] == [2 * turn, 2 * turn + 1]
            cursor = page.cursor
            first = await store.trim("run", author.tail - 5)
            head = await store.head("run")
            assert (head.first, head.tail) == (first, author.tail)
            assert author.tail - 6 <= first <= max(1, author.tail - 5)
        with pytest.raises(CursorExpired) as expired:
            await store.read("run", begin)
        assert expired.value.details["earliest"] == str(head.earliest)
        assert [where.seq for where, _ in await read_all(store, "run", head.earliest)] == list(
            range(head.first, head.tail + 1)
        )

"""The queue against a plain list: put, claim, renew, acknowledge, release, lapse, drop, restart; and who goes first."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from loom.model.errors import Fenced
from loom.model.ports import WorkQueue
from loom.model.priority import order
from loom.model.run import Claim, Meta

from .base import Machine

METAS = {
    meta.run: meta
    for meta in (
        Meta(run="a1", actor="actor", key="k", queue="q0"),
        Meta(run="a2", actor="actor", key="k", queue="q1", priority="high"),
        Meta(run="a3", actor="actor", key="k", queue="q0"),
        Meta(run="b1", actor="other", key="k", queue="q1", priority="low"),
        Meta(run="c1", actor="actor", queue="q0"),
        Meta(run="d1", actor="other", queue="q0", priority="high"),
        Meta(run="e1", actor="actor", key="k", queue="q0", priority="high", not_before=1e10),
    )
}
LEASE = 10.0
RUNS = st.sampled_from(sorted(METAS))
QUEUES = st.sampled_from([["q0"], ["q1"], ["q0", "q1"]])
EXCLUDE = st.sampled_from([[], [], ["actor"], ["other"]])
NUMBERS = st.integers(0, 50)
SECONDS = st.sampled_from([0.0, 0.0, 1.0, LEASE / 2, LEASE / 2, LEASE, 3 * LEASE])


@dataclass
class Entry:
    """A run in the queue, as far as the guarantees say where it is."""

    meta: Meta
    crashes: int = 0
    held: Claim | None = None
    beat: float = 0.0
    """When the heartbeat last counted up."""
    seen: float | None = None
    """When the store, after that, last looked in vain for a claim: it has seen the heartbeat then."""
    stood: float = 0.0
    """For how long the store must have seen it stand still by then: half a lease at most from look to look."""
    resting: bool = False
    """Released with a delay: it may come from now on, and once."""

    def may_lapse(self, now: float) -> bool:
        return self.held is not None and now - self.beat >= LEASE

    def must_lapse(self, now: float) -> bool:
        return self.held is not None and self._stood(now) >= 1.5 * LEASE

    def _stood(self, now: float) -> float:
        return 0.0 if self.seen is None else self.stood + min(now - self.seen, LEASE / 2)

    def looked_at(self, now: float) -> None:
        self.stood, self.seen = self._stood(now), now

    def begin(self, now: float) -> None:
        """Its lease, at the holder's word."""
        self.beat, self.stood, self.seen = now, 0.0, None


class QueueMachine(Machine):
    """The entries of a store's queue, in the order they were put."""

    def __init__(self) -> None:
        super().__init__()
        self.entries: dict[str, Entry] = {}
        self.claims: list[Claim] = []
        self.given = 0
        """Claims that were handed out in turn; what was seized is none."""

    @property
    def queue(self) -> WorkQueue:
        return self.store.queue

    def _ready(self, queues: list[str], exclude: list[str]) -> list[Entry]:
        """What stands first of its key, or has none, in these queues. The time of delayed starts does not come."""
        lines = {
            (entry.meta.actor, entry.meta.key or f"/{run}"): entry
            for run, entry in reversed(self.entries.items())
            if entry.meta.not_before is None
        }
        return [entry for entry in lines.values() if entry.meta.queue in queues and entry.meta.actor not in exclude]

    @rule(runs=st.lists(RUNS, min_size=1, max_size=4))
    def put(self, runs: list[str]) -> None:
        for run in runs:
            self.do(self.queue.put(METAS[run]))
            self.entries.setdefault(run, Entry(METAS[run]))

    @rule(run=RUNS, worker=st.sampled_from(["w1", "w2"]))
    def seize(self, run: str, worker: str) -> None:
        """Of runs that stand in no key's line."""
        if METAS[run].key is not None:
            return
        entry = self.entries.setdefault(run, Entry(METAS[run]))
        lapsed = entry.may_lapse(self.clock())
        entry.held = None  # taken over by force: no crash
        claim = self.do(self.queue.force_claim(METAS[run], worker, lease=LEASE))
        entry.crashes += lapsed and claim.crashes > entry.crashes  # the store had taken it as lapsed before
        self._claimed(entry, claim)

    @rule(run=RUNS)
    def drop(self, run: str) -> None:
        self.do(self.store.runs.drop(run))
        self.entries.pop(run, None)

    @rule(queues=QUEUES, worker=st.sampled_from(["w1", "w2"]), after=SECONDS, exclude=EXCLUDE)
    def claim(self, queues: list[str], worker: str, after: float, exclude: list[str]) -> None:
        """One that may be claimed; none only if none must be."""
        self.clock.advance(after)
        now = self.clock()
        ready = self._ready(queues, exclude)
        free = [entry for entry in ready if entry.held is None]
        may = [entry.meta.run for entry in free] + [entry.meta.run for entry in ready if entry.may_lapse(now)]
        must = [entry for entry in free if not entry.resting] + [entry for entry in ready if entry.must_lapse(now)]
        claim = self.do(self.queue.claim(queues, worker, lease=LEASE, wait=0, exclude=exclude))
        if claim is None:
            assert must == []
            for entry in self.entries.values():
                entry.looked_at(now)
        else:
            assert claim.run in may
            self._went_first(claim, must)
            self.given += 1
            self._claimed(self.entries[claim.run], claim)

    def _went_first(self, claim: Claim, must: list[Entry]) -> None:
        """Nothing that was claimable stood before it: of a priority that was looked at earlier, or put earlier."""
        turns = order(self.given)
        put = list(self.entries)

        def place(meta: Meta) -> tuple[int, int]:
            return turns.index(meta.priority), put.index(meta.run)

        assert place(claim.meta) == min(map(place, [claim.meta, *(entry.meta for entry in must)]))

    @rule()
    def entries_tell(self) -> None:
        """All there are, as far as it is known where they are."""
        shown = {entry.run: entry for entry in self.do(self.queue.list_entries())}
        assert sorted(shown) == sorted(self.entries)
        assert [run for run in shown if run != "e1"] == [run for run in self.entries if run != "e1"]
        for run, entry in self.entries.items():
            if entry.held is not None and not entry.may_lapse(self.clock()):
                told = shown[run]
                assert (told.place, told.worker, told.number) == ("leased", entry.held.worker, entry.held.number)
            elif entry.meta.not_before is not None:
                assert shown[run].place == "delayed"

    def _claimed(self, entry: Entry, claim: Claim) -> None:
        entry.crashes += entry.held is not None
        assert (claim.meta, claim.crashes) == (entry.meta, entry.crashes)
        assert all(claim.number > earlier.number for earlier in self.claims if earlier.run == claim.run)
        entry.held, entry.resting = claim, False
        entry.begin(self.clock())
        self.claims.append(claim)

    def _holder(self, which: int) -> tuple[Claim, Entry | None]:
        """A claim, mostly one that still holds, and the entry that it holds."""
        holding = [entry.held for entry in self.entries.values() if entry.held is not None]
        claim = (holding * 3 + self.claims)[which % (3 * len(holding) + len(self.claims))]
        entry = self.entries.get(claim.run)
        return claim, entry if entry is not None and entry.held == claim else None

    def _lost(self, entry: Entry, call: str, claim: Claim) -> bool:
        """Whether the store took a claim as lapsed that may have: then it is nobody's, and refused."""
        if not entry.may_lapse(self.clock()):
            return False
        try:
            self.do(getattr(self.store.queue, call)(claim))
        except Fenced:
            entry.crashes += 1
            entry.held = None
            return True
        return False

    @precondition(lambda self: self.claims)
    @rule(which=NUMBERS, after=SECONDS)
    def renew(self, which: int, after: float) -> None:
        self.clock.advance(after)
        claim, entry = self._holder(which)
        if entry is None:
            self.refused(self.queue.renew(claim), Fenced)
        elif not self._lost(entry, "renew", claim):
            self.do(self.queue.renew(claim))
            entry.begin(self.clock())

    @precondition(lambda self: self.claims)
    @rule(which=NUMBERS)
    def ack(self, which: int) -> None:
        claim, entry = self._holder(which)
        if entry is not None:
            if not self._lost(entry, "ack", claim):
                self.do(self.queue.ack(claim))
                del self.entries[claim.run]
        elif claim.run in self.entries:
            self.refused(self.queue.ack(claim), Fenced)
        else:
            self.do(self.queue.ack(claim))

    @precondition(lambda self: self.claims)
    @rule(which=NUMBERS, delay=st.sampled_from([0.0, 0.0, 5.0]))
    def release(self, which: int, delay: float) -> None:
        claim, entry = self._holder(which)
        if entry is None:
            self.refused(self.queue.release(claim, delay=delay), Fenced)
        elif not self._lost(entry, "renew", claim):
            self.do(self.queue.release(claim, delay=delay))
            entry.held, entry.resting = None, delay > 0

    @rule()
    def restart_it(self) -> None:
        """Whoever observes heartbeats begins anew."""
        if self.reopens:
            self.do(self.restart())
            for entry in self.entries.values():
                entry.stood, entry.seen = 0.0, None

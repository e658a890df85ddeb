"""Runs in memory: a record and two logs each, found by an index of everything that lists filter by."""

from __future__ import annotations

import heapq
import itertools
import secrets
from bisect import bisect_left, insort
from math import inf
from typing import Any

from msgspec.structs import replace

from loom.model import limits
from loom.model.chunk import Batch
from loom.model.cursor import EPOCH_DIGITS, make_epoch
from loom.model.errors import LogNotFound
from loom.model.ports import INBOX, OUTBOX, Commit, Notice, SweepReport, closing
from loom.model.run import ALL_RUNS, NO_INPUT, Head, Meta, RunFilter, RunState, inbox_of
from loom.stores.orphans import ending_batch, is_idle
from loom.wire.json import decode_chunk, ending_of

from .logs import Clock, Log, MemoryLogs
from .queue import MemoryQueue

ALL: tuple[str, ...] = ()
"""The term that every run has."""


class Run:
    """A run's record and its two logs."""

    def __init__(self, meta: Meta, number: int) -> None:
        self.meta = meta
        self.number = number
        self.outbox = Log(meta.run, OUTBOX, meta.run)
        self.inbox = Log(inbox_of(meta.run), INBOX, meta.run)
        self.record = Head(meta=meta)
        """Without what the outbox knows."""
        self.expires = inf
        """When its retention is over, by the store's clock."""
        self.terms = {ALL, *RunFilter.of(meta, "queued").terms}

    @property
    def size(self) -> int:
        return len(bytes(self.meta.input))

    def head(self, *, full: bool = True) -> Head:
        log = self.outbox
        head = replace(self.record, epochs=log.epochs, first=log.first, tail=log.tail, ended=log.ended)
        if not full:
            return replace(head, meta=replace(self.meta, input=NO_INPUT))
        # The last batch is never trimmed, so the result need not be kept twice.
        return replace(head, result=ending_of(log.batches[-1])[1]) if log.ended else head


class MemoryRuns:
    """The `RunStore`, and the sweep."""

    def __init__(
        self, logs: MemoryLogs, queue: MemoryQueue, clock: Clock, wall: Clock, retention: float | None
    ) -> None:
        self._logs, self._queue = logs, queue
        self._clock, self._wall = clock, wall
        self._retention = retention
        self._runs: dict[str, Run] = {}
        self._numbered: dict[int, Run] = {}
        self._index: dict[tuple[str, ...], list[int]] = {}  # rising numbers: the oldest run first
        self._numbers = itertools.count()
        self._unqueued: dict[str, Meta] = {}
        self._spent: dict[str, Run] = {}  # ended, and no longer in the queue; the oldest first
        self._due: list[tuple[float, int]] = []  # a heap: when a spent run's retention is over, its number
        logs.began, logs.ended = self._began, self._ended
        logs.forget_oldest, queue.entered, queue.left = self._forget_oldest, self._entered_queue, self._left_queue

    async def create(self, meta: Meta) -> Head:
        run = self._runs.get(meta.run)
        if run is None:
            run = Run(meta, next(self._numbers))
            self._logs.add(run.outbox, run.inbox, extra=run.size)
            self._runs[meta.run] = self._numbered[run.number] = run
            for term in run.terms:
                self._index.setdefault(term, []).append(run.number)
            if meta.run not in self._queue:
                self._unqueued[meta.run] = meta
        return run.head()

    async def get(self, run: str, *, full: bool = True) -> Head:
        return self._find(run).head(full=full)

    async def list_runs(
        self, filter: RunFilter = ALL_RUNS, *, limit: int = 100, before: str | None = None
    ) -> list[Head]:
        terms = {ALL, *filter.terms}
        bound = inf if before is None else self._find(before).number
        numbers = min((self._index.get(term, []) for term in terms), key=len)
        older = (numbers[place] for place in range(bisect_left(numbers, bound) - 1, -1, -1))
        runs = (run for run in map(self._numbered.__getitem__, older) if terms <= run.terms)
        return [run.head(full=False) for run in itertools.islice(runs, min(max(limit, 1), limits.LIST_LIMIT))]

    async def heartbeat(self, run: str) -> None:
        known = self._find(run)
        if not known.outbox.ended:
            known.record = replace(known.record, beat=known.record.beat + 1, heard=self._wall())

    async def cancel_unstarted(self, run: str, line: bytes) -> bool:
        known = self._find(run)
        log = known.outbox
        if log.ended or log.tokens:
            return not log.tokens
        epoch = log.begin(make_epoch(0, secrets.randbelow(EPOCH_DIGITS)))
        self._logs.append_nowait(run, Batch(epoch, 1, 1, line + b"\n"), closing(decode_chunk(line)))
        self._queue.drop(run, scheduled=True)
        self._left_queue(run)
        return True

    async def drop(self, run: str) -> None:
        self._queue.drop(run)
        if run in self._runs:
            self._forget(self._runs[run])

    async def sweep(self) -> SweepReport:
        orphans = list(itertools.islice(self._unqueued.values(), limits.SWEEP_RUNS))
        ended = sum([self._end_idle(self._runs[meta.run]) for meta in orphans])
        for meta in orphans:
            if meta.run in self._unqueued:
                await self._queue.put(meta)
        now, dropped = self._clock(), 0
        while self._due and self._due[0][0] <= now and dropped < limits.SWEEP_RUNS:
            run = self._numbered.get(heapq.heappop(self._due)[1])
            if run is not None and run.meta.run in self._spent:  # else it was dropped before, or is queued again
                self._forget(run)
                dropped += 1
        return SweepReport(requeued=len(orphans) - ended, dropped=dropped, ended=ended)

    def _end_idle(self, run: Run) -> bool:
        """End an orphan in which nothing has happened for too long. False: it is none."""
        log, now = run.outbox, self._wall()
        if not is_idle(log.last, now):
            return False
        batch, commit = ending_batch(log.begin(), log.tail, now)
        return self._logs.append_nowait(log.name, batch, commit)

    # --- for the other ports ------------------------------------------------------------------------------------------

    def _began(self, name: str) -> None:
        run = self._runs[name]
        if run.record.started is None:
            self._set_state(run, "running", started=self._wall())

    def _ended(self, name: str, commit: Commit) -> None:
        run = self._runs[name]
        assert commit.state is not None, "a run ends with a state"
        self._set_state(run, commit.state, error=commit.error, ended_at=self._wall())
        run.inbox.ended = True
        retention = run.meta.kept_for(self._retention)
        run.expires = inf if retention is None else self._clock() + retention
        self._left_queue(name)
        self._logs.watchers.tell(run.inbox.name, Notice(ended=True))

    def _entered_queue(self, name: str) -> None:
        """Keep a queued run from being dropped: a claim of it would begin it anew."""
        self._unqueued.pop(name, None)
        self._spent.pop(name, None)

    def _left_queue(self, name: str) -> None:
        """A run that has ended may be dropped, one that is open is an orphan; unless it is in the queue still."""
        run = self._runs.get(name)
        if run is None or name in self._queue or name in self._spent:
            return
        if not run.outbox.ended:
            self._unqueued[name] = run.meta
            return
        self._unqueued.pop(name, None)
        self._spent[name] = run
        if run.expires < inf:
            heapq.heappush(self._due, (run.expires, run.number))
        if len(self._due) > 2 * len(self._spent) + limits.SWEEP_RUNS:  # nothing stays of those dropped early
            self._due = [(spent.expires, spent.number) for spent in self._spent.values() if spent.expires < inf]
            heapq.heapify(self._due)

    def _forget_oldest(self) -> bool:
        """Drop the run that ended first. False: none has."""
        oldest = next(iter(self._spent.values()), None)
        if oldest is not None:
            self._forget(oldest)
        return oldest is not None

    def _find(self, run: str) -> Run:
        known = self._runs.get(run)
        if known is None:
            raise LogNotFound(f"there is no run {run!r}")
        return known

    def _set_state(self, run: Run, state: RunState, **more: Any) -> None:
        before = ("state", run.record.state)
        self._unlist(run, before)
        run.terms ^= {before, ("state", state)}
        insort(self._index.setdefault(("state", state), []), run.number)
        run.record = replace(run.record, state=state, **more)

    def _unlist(self, run: Run, term: tuple[str, ...]) -> None:
        numbers = self._index[term]
        del numbers[bisect_left(numbers, run.number)]
        if not numbers:
            del self._index[term]

    def _forget(self, run: Run) -> None:
        name = run.meta.run
        del self._runs[name], self._numbered[run.number]
        for term in run.terms:
            self._unlist(run, term)
        self._unqueued.pop(name, None)
        self._spent.pop(name, None)
        self._logs.remove(run.outbox, run.inbox, extra=run.size)

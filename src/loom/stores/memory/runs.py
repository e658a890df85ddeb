"""Runs in memory: a record and two logs each, found by an index of everything that lists filter by."""

from __future__ import annotations

import itertools
from bisect import bisect_left, bisect_right, insort
from math import inf
from operator import attrgetter
from typing import Any

from msgspec.structs import replace

from loom.model import limits
from loom.model.chunk import Batch
from loom.model.ports import INBOX, OUTBOX, Commit, Notice, SweepReport, closing
from loom.model.run import ALL_RUNS, NO_INPUT, Head, Meta, RunFilter, RunState, inbox_of
from loom.stores.orphans import ending_batch, is_idle
from loom.wire.json import decode_chunk, ending_of

from .logs import Clock, Log, MemoryLogs, Named
from .queue import MemoryQueue

ALL: tuple[str, ...] = ()
"""The term that every run has."""


_number, _expires = attrgetter("number"), attrgetter("expires")


class Run:
    """A run's record and its two logs."""

    def __init__(self, meta: Meta, number: int) -> None:
        self.meta = meta
        self.number = number
        self.outbox = Log(meta.run, OUTBOX, meta.run, extra=len(bytes(meta.input)))
        self.inbox = Log(inbox_of(meta.run), INBOX, meta.run)
        self.record = Head(meta=meta)
        """Without what the outbox knows."""
        self.expires = inf
        """When its retention is over, by the store's clock."""
        self.terms = {ALL, *RunFilter.of(meta, "queued").terms}

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
        self._runs: Named[Run] = Named("run")
        self._index: dict[tuple[str, ...], list[Run]] = {}  # the oldest first
        self._numbers = itertools.count()
        self._unqueued: dict[str, Run] = {}
        self._spent: dict[str, Run] = {}  # ended, and no longer in the queue; the oldest first
        self._due: list[Run] = []  # the same; whose retention is over first stands first
        logs.began, logs.ended = self._began, self._ended
        logs.forget_oldest, queue.entered, queue.left = self._forget_oldest, self._entered_queue, self._left_queue

    async def create(self, meta: Meta) -> Head:
        run = self._runs.get(meta.run)
        if run is None:
            run = Run(meta, next(self._numbers))
            self._logs.add(run.outbox, run.inbox)
            self._runs[meta.run] = run
            for term in run.terms:
                self._index.setdefault(term, []).append(run)
            if meta.run not in self._queue:
                self._unqueued[meta.run] = run
        return run.head()

    async def get(self, run: str, *, full: bool = True) -> Head:
        return self._runs[run].head(full=full)

    async def list_runs(
        self, filter: RunFilter = ALL_RUNS, *, limit: int = 100, before: str | None = None
    ) -> list[Head]:
        terms = {ALL, *filter.terms}
        bound = inf if before is None else self._runs[before].number
        listed = min((self._index.get(term, []) for term in terms), key=len)
        older = (listed[place] for place in range(bisect_left(listed, bound, key=_number) - 1, -1, -1))
        runs = (run for run in older if terms <= run.terms)
        return [run.head(full=False) for run in itertools.islice(runs, min(max(limit, 1), limits.LIST_LIMIT))]

    async def heartbeat(self, run: str) -> None:
        known = self._runs[run]
        if not known.outbox.ended:
            known.record = replace(known.record, beat=known.record.beat + 1, heard=self._wall())

    async def cancel_unstarted(self, run: str, line: bytes) -> bool:
        log = self._runs[run].outbox
        if log.ended or log.tokens:
            return not log.tokens
        epoch = log.begin(attempt=0)
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
        ended, now = 0, self._wall()
        for run in orphans:
            log = run.outbox
            if is_idle(log.last, now):
                ended += self._logs.append_nowait(log.name, *ending_batch(log.begin(), log.tail, now))
            else:
                await self._queue.put(run.meta)
        over = self._due[: min(bisect_right(self._due, self._clock(), key=_expires), limits.SWEEP_RUNS)]
        for run in over:
            self._forget(run)
        return SweepReport(requeued=len(orphans) - ended, dropped=len(over), ended=ended)

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
        spent = self._spent.pop(name, None)
        if spent is not None:
            del self._due[self._due.index(spent, bisect_left(self._due, spent.expires, key=_expires))]

    def _left_queue(self, name: str) -> None:
        """A run that has ended may be dropped, one that is open is an orphan; unless it is in the queue still."""
        run = self._runs.get(name)
        if run is None or name in self._queue or name in self._spent:
            return
        if run.outbox.ended:
            self._unqueued.pop(name, None)
            self._spent[name] = run
            insort(self._due, run, key=_expires)
        else:
            self._unqueued[name] = run

    def _forget_oldest(self) -> bool:
        """Drop the run that ended first. False: none has."""
        oldest = next(iter(self._spent.values()), None)
        if oldest is not None:
            self._forget(oldest)
        return oldest is not None

    def _set_state(self, run: Run, state: RunState, **more: Any) -> None:
        before = ("state", run.record.state)
        self._unlist(run, before)
        run.terms ^= {before, ("state", state)}
        insort(self._index.setdefault(("state", state), []), run, key=_number)
        run.record = replace(run.record, state=state, **more)

    def _unlist(self, run: Run, term: tuple[str, ...]) -> None:
        listed = self._index[term]
        del listed[bisect_left(listed, run.number, key=_number)]
        if not listed:
            del self._index[term]

    def _forget(self, run: Run) -> None:
        del self._runs[run.meta.run]
        for term in run.terms:
            self._unlist(run, term)
        self._entered_queue(run.meta.run)
        self._logs.remove(run.outbox, run.inbox)

"""A store as small as the ports allow: lists and dicts, searched from end to end. What a fourth store has to do."""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import inf
from typing import Any, Self

from msgspec.structs import replace

from loom.model import history, limits, ports
from loom.model.chunk import Batch, Page
from loom.model.cursor import Cursor, make_epoch
from loom.model.errors import Conflict, Fenced, LogEnded, LogNotFound, UsageError
from loom.model.lease import Beat, Observed
from loom.model.ports import Commit, Fence, LogInfo, LogSpec, Notice, ProducerSeq, SweepReport
from loom.model.priority import order
from loom.model.run import ALL_RUNS, NO_INPUT, Claim, Entry, Head, Mark, Meta, Place, RunFilter, WorkerInfo, inbox_of
from loom.stores.orphans import ending_batch, is_idle
from loom.stores.positions import Positions
from loom.stores.watchers import Watchers, retried, wait_page
from loom.wire.json import decode_chunk, ending_of

Clock = Callable[[], float]


@dataclass(eq=False)
class Log:
    spec: LogSpec
    run: str | None = None
    batches: list[Batch] = field(default_factory=list)
    epochs: tuple[tuple[int, int], ...] = ()
    ended: bool = False
    tokens: dict[str, int] = field(default_factory=dict)
    failures: int = 0
    producers: dict[str, tuple[ProducerSeq, Cursor]] = field(default_factory=dict)
    positions: Positions = field(default_factory=Positions)

    def info(self) -> LogInfo:
        first, tail = (self.batches[0].first, self.batches[-1].last) if self.batches else (1, 0)
        size = sum(len(batch.payload) for batch in self.batches)
        return LogInfo(spec=self.spec, epochs=self.epochs, first=first, tail=tail, ended=self.ended, size=size)

    def begin(self, attempt: int | None = None) -> int:
        digits = secrets.randbelow(10**8)
        epoch = history.next_epoch(self.epochs, digits) if attempt is None else make_epoch(attempt, digits)
        self.epochs = history.add_epoch(self.epochs, epoch, self.info().tail)
        return epoch


class ToyLogs:
    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.logs: dict[str, Log] = {}
        self.watchers = Watchers()
        self.on_begin: Callable[[str], None]
        self.on_end: Callable[[str, Commit], None]

    def find(self, log: str) -> Log:
        if log not in self.logs:
            raise LogNotFound(f"there is no log {log!r}")
        return self.logs[log]

    def add(self, log: str, spec: LogSpec, run: str | None = None) -> None:
        known = self.logs[log] = Log(spec, run)
        if spec.policy == "many":
            known.begin(attempt=1)
        self.watchers.tell(log, Notice())

    async def create(self, log: str, spec: LogSpec) -> LogInfo:
        if log not in self.logs:
            self.add(log, spec)
        elif self.logs[log].run is not None or self.logs[log].spec != spec:
            raise Conflict(f"there is another log {log!r}")
        return self.logs[log].info()

    async def info(self, log: str) -> LogInfo:
        return self.find(log).info()

    async def fence(self, log: str, token: str, *, failures: int = 0) -> Fence:
        known = self.find(log)
        history.check_single(log, known.spec)
        if known.tokens.get(token, history.newest(known.epochs)) != history.newest(known.epochs):
            raise Fenced("a newer writer has taken over")
        if token not in known.tokens and not known.ended:
            known.tokens[token] = known.begin()
            if known.run is not None:
                self.on_begin(known.run)
        known.failures = max(known.failures, failures)
        info = known.info()
        return Fence(history.newest(known.epochs), info.tail, known.ended, info.size, known.failures)

    async def append(self, log: str, batch: Batch, commit: Commit | None = None) -> Cursor:
        known = self.find(log)
        history.check_single(log, known.spec, batch)
        epoch, end, last = history.newest(known.epochs), commit is not None and commit.end, known.batches[-1:]
        if not history.continues(batch, epoch=epoch, tail=known.info().tail, ended=known.ended):
            history.check_repeat(batch, end=end, epoch=epoch, ended=known.ended, last=last[0] if last else None)
            return batch.cursor
        known.batches.append(batch)
        if commit is not None and commit.end:
            known.ended = True
            if known.run is not None:
                self.on_end(known.run, commit)
        self.watchers.tell(log, Notice(batch, end))
        return batch.cursor

    def append_nowait(self, log: str, batch: Batch, commit: Commit | None = None) -> bool:
        return False

    async def send(
        self, log: str, record: bytes, producer: ProducerSeq, *, end: bool = False, urgent: bool = False
    ) -> Cursor:
        known = self.find(log)
        info = known.info()
        batch = history.record_batch(log, known.spec, history.newest(known.epochs), info.tail + 1, record)
        before, cursor = known.producers.get(producer.producer, (None, batch.cursor))
        if history.is_repeat(before, producer):
            return cursor
        if known.ended:
            raise LogEnded("the log has ended")
        if not urgent:
            history.check_room(known.spec, len(batch.payload), records=info.tail - info.first + 1, stored=info.size)
        known.batches.append(batch)
        known.producers[producer.producer] = (producer, batch.cursor)
        known.ended = end
        self.watchers.tell(log, Notice(batch, end))
        return batch.cursor

    async def read(
        self, log: str, after: Cursor | None = None, *, limit: int = limits.PAGE_CHUNKS,
        limit_bytes: int = limits.PAGE_BYTES, wait: float = 0.0,
    ) -> Page:  # fmt: skip
        return await wait_page(self.watch, log, lambda: self.page(log, after, limit, limit_bytes), wait)

    async def page(self, log: str, after: Cursor | None, limit: int, limit_bytes: int) -> Page:
        known, info = self.find(log), self.find(log).info()
        start = history.start_after(after, epochs=info.epochs, first=info.first, tail=info.tail)
        rest, tail, ended = [batch for batch in known.batches if batch.last >= start], info.tail, info.ended
        return history.page_of(rest, start, after=after, tail=tail, ended=ended, limit=limit, limit_bytes=limit_bytes)

    async def trim(self, log: str, before: int) -> int:
        known = self.find(log)
        known.batches = [batch for batch in known.batches[:-1] if batch.last >= before] + known.batches[-1:]
        return known.info().first

    async def drop(self, log: str) -> None:
        if log in self.logs:
            if self.logs[log].run is not None:
                raise UsageError(f"log {log!r} belongs to a run")
            self.remove(log)

    def remove(self, log: str) -> None:
        del self.logs[log]
        self.watchers.tell(log, Notice())

    def watch(self, log: str, notify: ports.Notify) -> ports.Unwatch:
        return self.watchers.add(log, notify)

    async def commit_position(self, log: str, reader: str, seq: int | None) -> None:
        self.find(log).positions.commit(log, reader, seq, self.clock())
        self.watchers.tell(log, Notice(marks=True))

    async def positions(self, log: str) -> list[Mark]:
        return self.find(log).positions.attached(self.clock())


class ToyRuns:
    def __init__(self, logs: ToyLogs, queue: ToyQueue) -> None:
        self.logs, self.queue = logs, queue
        self.runs: dict[str, Head] = {}
        logs.on_begin, logs.on_end = self.began, self.ended

    def find(self, run: str) -> Head:
        if run not in self.runs:
            raise LogNotFound(f"there is no run {run!r}")
        return self.runs[run]

    async def create(self, meta: Meta) -> Head:
        if meta.run not in self.runs:
            if meta.run in self.logs.logs or inbox_of(meta.run) in self.logs.logs:
                raise Conflict(f"there is a log {meta.run!r} already")
            self.runs[meta.run] = Head(meta=meta)
            self.logs.add(meta.run, ports.OUTBOX, meta.run)
            self.logs.add(inbox_of(meta.run), ports.INBOX, meta.run)
        return await self.get(meta.run)

    async def get(self, run: str, *, full: bool = True) -> Head:
        known, log = self.find(run), self.logs.logs[run]
        info = log.info()
        head = replace(known, epochs=info.epochs, first=info.first, tail=info.tail, ended=info.ended)
        if not full:
            return replace(head, meta=replace(known.meta, input=NO_INPUT))
        return replace(head, result=ending_of(log.batches[-1])[1]) if log.ended else head

    async def list_runs(
        self, filter: RunFilter = ALL_RUNS, *, limit: int = 100, before: str | None = None
    ) -> list[Head]:
        names = list(self.runs)
        older = names if before is None else names[: names.index(self.find(before).meta.run)]
        found = [run for run in reversed(older) if filter.matches(self.runs[run])]
        return [await self.get(run, full=False) for run in found[: max(limit, 1)]]

    async def heartbeat(self, run: str) -> None:
        known = self.find(run)
        if known.ended_at is None:
            self.runs[run] = replace(known, beat=known.beat + 1, heard=time.time())

    async def cancel_unstarted(self, run: str, line: bytes) -> bool:
        known = self.find(run)
        if known.ended_at is None and known.started is None:
            epoch = self.logs.logs[run].begin(attempt=0)
            await self.logs.append(run, Batch(epoch, 1, 1, line + b"\n"), ports.closing(decode_chunk(line)))
            self.queue.later = [entry for entry in self.queue.later if entry.meta.run != run]
        return known.started is None

    async def drop(self, run: str) -> None:
        self.queue.forget(run)
        if self.runs.pop(run, None) is not None:
            self.logs.remove(run)
            self.logs.remove(inbox_of(run))

    def began(self, run: str) -> None:
        if self.runs[run].started is None:
            self.runs[run] = replace(self.runs[run], state="running", started=time.time())

    def ended(self, run: str, commit: Commit) -> None:
        state = commit.state or "completed"
        self.runs[run] = replace(self.runs[run], state=state, error=commit.error, ended_at=time.time())
        self.logs.logs[inbox_of(run)].ended = True
        self.logs.watchers.tell(inbox_of(run), Notice(ended=True))

    async def sweep(self) -> SweepReport:
        requeued = dropped = ended = 0
        for run, known in list(self.runs.items()):
            log = self.logs.logs[run]
            if self.queue.find(run) is not None:
                continue
            kept_for = known.meta.kept_for(limits.RETENTION)
            if known.ended_at is not None and kept_for is not None and known.ended_at + kept_for <= time.time():
                await self.drop(run)
                dropped += 1
            elif not log.ended and is_idle(log.batches[-1] if log.batches else None, time.time()):
                await self.logs.append(run, *ending_batch(log.begin(), log.info().tail, time.time()))
                ended += 1
            elif not log.ended:
                await self.queue.put(known.meta)
                requeued += 1
        return SweepReport(requeued, dropped, ended)


@dataclass(eq=False)
class Waiting:
    meta: Meta
    claim: Claim | None = None
    lease: float = 0.0
    beat: int = 0
    claims: int = 0
    crashes: int = 0
    until: float = -inf
    """When its delay is over."""


class ToyQueue:
    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.entries: list[Waiting] = []
        self.later: list[Waiting] = []
        self.observed = Observed()
        self.numbers = itertools.count(1)
        self.given = 0

    def find(self, run: str) -> Waiting | None:
        return next((entry for entry in self.entries + self.later if entry.meta.run == run), None)

    def forget(self, run: str) -> None:
        self.entries, self.later = ([e for e in each if e.meta.run != run] for each in (self.entries, self.later))

    def held(self, claim: Claim) -> Waiting:
        entry = self.find(claim.run)
        if entry is None or entry.claim != claim:
            raise Fenced(f"run {claim.run!r} is no longer claimed")
        return entry

    async def put(self, meta: Meta) -> None:
        if self.find(meta.run) is None:
            later = meta.not_before is not None and meta.not_before > time.time()
            (self.later if later else self.entries).append(Waiting(meta))

    def look(self) -> None:
        """Put those whose time has come; take away the claims that stood still."""
        for entry in sorted(self.later, key=lambda entry: entry.meta.not_before or 0.0):
            if (entry.meta.not_before or 0.0) <= time.time():
                self.later.remove(entry)
                self.entries.append(entry)
        claimed = {e.meta.run: e for e in self.entries + self.later if e.claim is not None}
        beats = [Beat(run, entry.claims, entry.beat, entry.lease) for run, entry in claimed.items()]
        for beat in self.observed.look(beats, self.clock()):
            claimed[beat.run].claim = None
            claimed[beat.run].crashes += 1

    def place(self, entry: Waiting) -> Place:
        actor, key = entry.meta.actor, entry.meta.key
        line = [e for e in self.entries if key is not None and (e.meta.actor, e.meta.key) == (actor, key)]
        if entry.claim is not None:
            return "leased"
        if entry in self.later or self.clock() < entry.until:
            return "delayed"
        return "behind" if line and line[0] is not entry else "ready"

    def give(self, entry: Waiting, worker: str, lease: float) -> Claim:
        entry.claims, entry.lease = next(self.numbers), lease
        entry.claim = Claim(meta=entry.meta, worker=worker, number=entry.claims, crashes=entry.crashes)
        return entry.claim

    async def claim(
        self, queues: Sequence[str], worker: str, *, lease: float, wait: float, exclude: Collection[str] = ()
    ) -> Claim | None:
        return await retried(partial(self.take, queues, worker, lease, exclude), {}, wait, lambda: 0.01)

    def take(self, queues: Sequence[str], worker: str, lease: float, exclude: Collection[str]) -> Claim | None:
        self.look()
        fit = [e for e in self.entries if e.meta.queue in queues and e.meta.actor not in exclude]
        ready = [entry for entry in fit if self.place(entry) == "ready"]
        ready.sort(key=lambda entry: order(self.given).index(entry.meta.priority))
        self.given += bool(ready)
        return self.give(ready[0], worker, lease) if ready else None

    async def force_claim(self, meta: Meta, worker: str, *, lease: float) -> Claim:
        await self.put(meta)
        entry = self.find(meta.run)
        assert entry is not None
        if entry.meta.queue != meta.queue:
            raise Conflict(f"run {meta.run!r} is in queue {entry.meta.queue!r}")
        return self.give(entry, worker, lease)

    async def renew(self, claim: Claim) -> None:
        self.held(claim).beat += 1

    async def renew_all(self, claims: Sequence[Claim]) -> list[bool]:
        held = [(entry := self.find(claim.run)) is not None and entry.claim == claim for claim in claims]
        for claim in itertools.compress(claims, held):
            await self.renew(claim)
        return held

    async def ack(self, claim: Claim) -> None:
        if self.find(claim.run) is not None:
            self.forget(self.held(claim).meta.run)

    async def release(self, claim: Claim, *, delay: float = 0.0) -> None:
        entry = self.held(claim)
        entry.claim, entry.until = None, self.clock() + delay

    async def list_entries(
        self, *, queue: str | None = None, place: Place | None = None, limit: int = 100
    ) -> list[Entry]:
        later = sorted(self.later, key=lambda entry: entry.meta.not_before or 0.0)
        found = [
            Entry(
                place=self.place(each), worker=each.claim.worker if each.claim else None, number=each.claims,
                crashes=each.crashes, **{name: getattr(each.meta, name) for name in SHOWN},
            )
            for each in [*self.entries, *later]
        ]  # fmt: skip
        wanted = [each for each in found if queue in (None, each.queue) and place in (None, each.place)]
        return wanted[: min(max(limit, 1), limits.LIST_LIMIT)]


SHOWN = ("run", "actor", "queue", "key", "priority", "created", "not_before")


class ToyWorkers:
    def __init__(self) -> None:
        self.infos: dict[str, WorkerInfo] = {}
        self.asked: set[str] = set()

    async def register(self, info: WorkerInfo) -> bool:
        if info.name in self.infos and self.infos[info.name].started != info.started:
            self.asked.discard(info.name)
        self.infos[info.name] = replace(info, seen=time.time())
        return info.name in self.asked

    async def deregister(self, worker: str) -> None:
        self.infos.pop(worker, None)
        self.asked.discard(worker)

    async def list_workers(self) -> list[WorkerInfo]:
        there = [info for _, info in sorted(self.infos.items()) if info.seen > time.time() - limits.WORKER_SEEN]
        return [replace(info, draining=info.draining or info.name in self.asked) for info in there]

    async def request_drain(self, worker: str) -> None:
        if worker not in [info.name for info in await self.list_workers()]:
            raise UsageError(f"there is no worker {worker!r}", code="unknown_worker")
        self.asked.add(worker)


class ToyStore:
    durability: ports.Durability = "memory"
    waits = False

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self.logs = ToyLogs(clock)
        self.queue = ToyQueue(clock)
        self.runs = ToyRuns(self.logs, self.queue)
        self.workers = ToyWorkers()
        self.sweep = self.runs.sweep

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: Any) -> None: ...

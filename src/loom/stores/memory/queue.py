"""The queue in memory: entries in the order they were put, leases and delays by one clock."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf
from operator import attrgetter
from typing import Literal

from loom.model import limits
from loom.model.errors import Conflict, Fenced
from loom.model.priority import Priority, order
from loom.model.run import Claim, Entry, Meta, Place
from loom.stores.watchers import retried


@dataclass(slots=True, eq=False)
class _Entry:
    """A run in the queue."""

    meta: Meta
    number: int
    place: Place | Literal["scheduled", "gone"] = "behind"
    """`scheduled`: its `not_before` is still to come."""
    claim: Claim | None = None
    claims: int = 0
    """The newest claim's number."""
    crashes: int = 0
    lease: float = 0.0
    doubted: bool = False
    """Its lease was prolonged once, for nobody had looked at the queue for long."""
    due: float = inf
    """When its delay, or its claim's lease, is over."""

    def shown(self) -> Entry:
        return Entry(
            place="delayed" if self.place == "scheduled" else self.place,  # type: ignore[arg-type]
            worker=self.claim.worker if self.claim else None,
            number=self.claims,
            crashes=self.crashes,
            **{name: getattr(self.meta, name) for name in _SHOWN},
        )


_number = attrgetter("number")
_SHOWN = ("run", "actor", "queue", "key", "priority", "created", "not_before")


class MemoryQueue:
    """The `WorkQueue`."""

    def __init__(self, clock: Callable[[], float], wall: Callable[[], float]) -> None:
        self._clock, self._wall = clock, wall
        self.entered: Callable[[str], None] = lambda run: None
        self.left: Callable[[str], None] = lambda run: None
        """Called with each run that is in the queue from now on, or no more."""
        self._looked = inf
        self._entries: dict[str, _Entry] = {}
        self._keys: dict[tuple[str, str], deque[_Entry]] = {}
        self._scheduled: list[tuple[float, int, _Entry]] = []
        # By actor too: the backlog of one that a worker may take no more of costs it nothing.
        self._ready: dict[tuple[str, Priority], dict[str, list[tuple[int, _Entry]]]] = {}
        self._timers: list[tuple[float, int, _Entry]] = []  # a heap; those whose entry is due at another time are void
        self._count = itertools.count(1)
        self._given = 0
        self._waiting: dict[asyncio.Event, None] = {}  # in the order in which they came

    def __contains__(self, run: str) -> bool:
        return run in self._entries

    async def put(self, meta: Meta) -> None:
        if meta.run in self._entries:
            return
        entry = self._add(meta)
        if meta.not_before is not None and meta.not_before > self._wall():
            entry.place = "scheduled"
            heapq.heappush(self._scheduled, (meta.not_before, entry.number, entry))
            self._wake()
        else:
            self._enqueue(entry)

    async def claim(
        self, queues: Sequence[str], worker: str, *, lease: float, wait: float, exclude: Collection[str] = ()
    ) -> Claim | None:
        take = partial(self._take, queues, worker, lease, exclude)
        return await retried(take, self._waiting, wait, lambda: min(self._until_due(), limits.OBSERVE))

    async def force_claim(self, meta: Meta, worker: str, *, lease: float) -> Claim:
        entry = self._entries.get(meta.run)
        if entry is not None and entry.meta.queue != meta.queue:
            raise Conflict(f"run {meta.run!r} is in queue {entry.meta.queue!r}", details={"run": meta.run})
        return self._assign(entry or self._add(meta), worker, lease)

    async def renew(self, claim: Claim) -> None:
        entry = self._held(claim)
        self._set_due(entry, entry.lease)

    async def renew_all(self, claims: Sequence[Claim]) -> list[bool]:
        held = [self._entry_of(claim) for claim in claims]
        for entry in filter(None, held):
            self._set_due(entry, entry.lease)
        return [entry is not None for entry in held]

    async def ack(self, claim: Claim) -> None:
        if claim.run in self._entries:
            self._held(claim)
            self.drop(claim.run)
        self.left(claim.run)

    async def release(self, claim: Claim, *, delay: float = 0.0) -> None:
        entry = self._held(claim)
        entry.claim = None
        if delay > 0:
            entry.place = "delayed"
            self._set_due(entry, delay)
        else:
            self._make_ready(entry)

    async def list_entries(
        self, *, queue: str | None = None, place: Place | None = None, limit: int = 100
    ) -> list[Entry]:
        put = sorted((each for each in self._entries.values() if each.place != "scheduled"), key=_number)
        later = [entry for _, _, entry in sorted(self._scheduled) if entry.place == "scheduled"]
        shown = map(_Entry.shown, [*put, *later])
        wanted = (each for each in shown if queue in (None, each.queue) and place in (None, each.place))
        return list(itertools.islice(wanted, min(max(limit, 1), limits.LIST_LIMIT)))

    # --- for runs ----------------------------------------------------------------------------------------------------

    def drop(self, run: str, *, scheduled: bool = False) -> None:
        """Forget a run's entry (with `scheduled`: only one that is), whoever holds it; its key's next one is ready."""
        entry = self._entries.get(run)
        if entry is None or (scheduled and entry.place != "scheduled"):
            return
        del self._entries[run]
        line = self._keys.get((entry.meta.actor, entry.meta.key or ""), deque())
        if entry in line:
            line.remove(entry)
            if not line:
                del self._keys[entry.meta.actor, entry.meta.key or ""]
            elif line[0].place == "behind":
                self._make_ready(line[0])
        entry.place, entry.due = "gone", inf

    # --- inside ------------------------------------------------------------------------------------------------------

    def _add(self, meta: Meta) -> _Entry:
        entry = self._entries[meta.run] = _Entry(meta, next(self._count))
        self.entered(meta.run)
        return entry

    def _enqueue(self, entry: _Entry) -> None:
        """The last of all, and of its key's line."""
        if entry.meta.key is not None:
            line = self._keys.setdefault((entry.meta.actor, entry.meta.key), deque())
            line.append(entry)
            if line[0] is not entry:
                entry.place = "behind"
                return
        self._make_ready(entry)

    def _entry_of(self, claim: Claim) -> _Entry | None:
        """The entry that this claim holds still."""
        entry = self._entries.get(claim.run)
        held = entry is not None and entry.claim is not None and entry.claim.number == claim.number
        return entry if held else None

    def _held(self, claim: Claim) -> _Entry:
        entry = self._entry_of(claim)
        if entry is None:
            raise Fenced(f"run {claim.run!r} is no longer claimed by {claim.worker!r}")
        return entry

    def _make_ready(self, entry: _Entry) -> None:
        entry.place, entry.due, meta = "ready", inf, entry.meta
        ready = self._ready.setdefault((meta.queue, meta.priority), {}).setdefault(meta.actor, [])
        heapq.heappush(ready, (entry.number, entry))
        self._wake()

    def _wake(self) -> None:
        for changed in self._waiting:
            changed.set()

    def _take(self, queues: Sequence[str], worker: str, lease: float, exclude: Collection[str]) -> Claim | None:
        self._advance_timers(self._clock())
        for priority in order(self._given):
            heads = [head for name in queues for head in self._heads(name, priority, exclude)]
            if heads:
                self._given += 1
                entry = min(heads, key=_number)
                heapq.heappop(self._ready[entry.meta.queue, priority][entry.meta.actor])
                return self._assign(entry, worker, lease)
        return None

    def _assign(self, entry: _Entry, worker: str, lease: float) -> Claim:
        # Numbers are drawn from the store's one count: also of a run that comes again they only grow.
        claim = Claim(meta=entry.meta, worker=worker, number=next(self._count), crashes=entry.crashes)
        entry.place, entry.claim, entry.claims = "leased", claim, claim.number
        entry.lease = lease
        self._set_due(entry, lease)
        return claim

    def _heads(self, queue: str, priority: Priority, exclude: Collection[str]) -> Iterator[_Entry]:
        """The first one ready of each actor."""
        actors = self._ready.get((queue, priority), {})
        for actor, ready in list(actors.items()):
            while ready and ready[0][1].place != "ready":  # dropped meanwhile
                heapq.heappop(ready)
            if not ready:
                del actors[actor]
            elif actor not in exclude:
                yield ready[0][1]

    def _set_due(self, entry: _Entry, seconds: float, *, doubted: bool = False) -> None:
        entry.due, entry.doubted = self._clock() + seconds, doubted
        heapq.heappush(self._timers, (entry.due, next(self._count), entry))

    def _advance_timers(self, now: float) -> None:
        """Put those whose time has come; make ready what is due: delays that are over, claims whose lease lapsed."""
        while self._scheduled and (self._scheduled[0][0] <= self._wall() or self._scheduled[0][2].place == "gone"):
            entry = heapq.heappop(self._scheduled)[2]
            if entry.place == "scheduled":
                entry.number = next(self._count)
                self._enqueue(entry)
        passed, self._looked = now - self._looked, now
        while self._timers and self._timers[0][0] <= now:
            due, _, entry = heapq.heappop(self._timers)
            if due != entry.due:
                continue
            if entry.place == "leased" and passed > entry.lease / 2 and not entry.doubted:
                # The cause may have stopped the holder too: half a lease to renew (as model/lease.py).
                self._set_due(entry, entry.lease / 2, doubted=True)
            else:
                entry.crashes += entry.place == "leased"
                entry.claim = None
                self._make_ready(entry)

    def _until_due(self) -> float:
        """Seconds until the next entry may become claimable by itself."""
        lapse = self._timers[0][0] - self._clock() if self._timers else inf
        start = self._scheduled[0][0] - self._wall() if self._scheduled else inf
        return max(min(lapse, start), 0.0)

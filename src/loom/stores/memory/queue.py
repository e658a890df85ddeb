"""The queue in memory: entries in the order they were put, leases and delays by one clock."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from enum import Enum
from math import inf

from loom.model import limits
from loom.model.errors import Conflict, Fenced
from loom.model.priority import Priority, order
from loom.model.run import Claim, Entry, Meta, Place

__all__ = ["Queue"]


class _Place(Enum):
    """Where an entry of the queue is."""

    LATER = "not put yet: its time has not come"
    BEHIND = "behind an earlier entry of its key"
    READY = "ready"
    DELAYED = "released with a delay"
    CLAIMED = "claimed"
    GONE = "gone"


_SHOWN: dict[_Place, Place] = {
    _Place.LATER: "delayed",
    _Place.BEHIND: "behind",
    _Place.READY: "ready",
    _Place.DELAYED: "delayed",
    _Place.CLAIMED: "leased",
}


class _Entry:
    """A run in the queue."""

    __slots__ = ("claim", "claims", "crashes", "doubted", "due", "lease", "meta", "number", "place", "timer")

    def __init__(self, meta: Meta, number: int) -> None:
        self.meta = meta
        self.number = number
        self.place = _Place.BEHIND
        self.claim: Claim | None = None
        self.claims = 0
        """The newest claim's number."""
        self.crashes = 0
        self.lease = 0.0
        self.doubted = False
        """Its lease was prolonged, for nobody had looked at the queue for long."""
        self.due = inf
        """When its delay, or its claim's lease, is over."""
        self.timer = inf
        """When the queue looks at it next."""

    def shown(self) -> Entry:
        meta = self.meta
        return Entry(
            run=meta.run,
            actor=meta.actor,
            queue=meta.queue,
            key=meta.key,
            priority=meta.priority,
            place=_SHOWN[self.place],
            worker=self.claim.worker if self.claim else None,
            number=self.claims,
            crashes=self.crashes,
            created=meta.created,
            not_before=meta.not_before,
        )


class Queue:
    """Entries in the order they were put; of one actor's key only the first may be ready."""

    def __init__(self, clock: Callable[[], float], wall: Callable[[], float]) -> None:
        self._clock = clock
        self._wall = wall
        self._looked = inf
        self._entries: dict[str, _Entry] = {}
        self._keys: dict[tuple[str, str], deque[_Entry]] = {}
        self._later: list[tuple[float, int, _Entry]] = []
        # By actor too: the backlog of one that a worker may take no more of costs it nothing.
        self._ready: dict[tuple[str, Priority], dict[str, list[tuple[int, _Entry]]]] = {}
        self._timers: list[tuple[float, int, _Entry]] = []
        self._count = itertools.count(1)
        self._given = 0
        self._waiting: dict[asyncio.Event, None] = {}  # in the order in which they came

    def __contains__(self, run: str) -> bool:
        return run in self._entries

    def put(self, meta: Meta) -> None:
        """As `ports.Queue.put`; so are the others of these names."""
        if meta.run in self._entries:
            return
        entry = self._entries[meta.run] = _Entry(meta, next(self._count))
        if meta.not_before is not None and meta.not_before > self._wall():
            entry.place = _Place.LATER
            heapq.heappush(self._later, (meta.not_before, entry.number, entry))
            self._wake()
        else:
            self._enter(entry)

    def _enter(self, entry: _Entry) -> None:
        """Put it: the last of all, and of its key's line."""
        meta = entry.meta
        if meta.key is not None:
            line = self._keys.setdefault((meta.actor, meta.key), deque())
            line.append(entry)
            if line[0] is not entry:
                entry.place = _Place.BEHIND
                return
        self._make_ready(entry)

    async def claim(
        self, queues: Sequence[str], worker: str, lease: float, wait: float, without: Collection[str]
    ) -> Claim | None:
        claim = self._take(queues, worker, lease, without)
        if claim is not None or wait <= 0:
            return claim
        loop = asyncio.get_running_loop()
        end = loop.time() + wait
        changed = asyncio.Event()
        self._waiting[changed] = None
        try:
            while claim is None and (left := end - loop.time()) > 0:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(left, self._until_due(), limits.OBSERVE)):
                        await changed.wait()
                changed.clear()
                claim = self._take(queues, worker, lease, without)
        finally:
            del self._waiting[changed]
        return claim

    def seize(self, meta: Meta, worker: str, lease: float) -> Claim:
        entry = self._entries.get(meta.run)
        if entry is None:
            entry = self._entries[meta.run] = _Entry(meta, next(self._count))
        elif entry.meta.queue != meta.queue:
            raise Conflict(f"run {meta.run!r} is in queue {entry.meta.queue!r}", details={"run": meta.run})
        return self._give(entry, worker, lease)

    def renew(self, claim: Claim) -> None:
        entry = self._held(claim)
        entry.doubted = False
        self._set_due(entry, self._clock() + entry.lease)

    def renew_held(self, claim: Claim) -> bool:
        """`renew`; whether it still is its worker's."""
        try:
            self.renew(claim)
        except Fenced:
            return False
        return True

    def ack(self, claim: Claim) -> None:
        if claim.run in self._entries:
            self._held(claim)
            self.drop(claim.run)

    def release(self, claim: Claim, delay: float) -> None:
        entry = self._held(claim)
        entry.claim = None
        if delay > 0:
            entry.place = _Place.DELAYED
            self._set_due(entry, self._clock() + delay)
        else:
            self._make_ready(entry)

    def drop(self, run: str) -> None:
        """Forget a run's entry, whoever holds it; its key's next one is ready then."""
        entry = self._entries.pop(run, None)
        if entry is None:
            return
        waited, entry.place = entry.place is _Place.LATER, _Place.GONE
        if entry.meta.key is not None and not waited:
            self._leave_line((entry.meta.actor, entry.meta.key), entry)

    def drop_later(self, run: str) -> None:
        """Forget a run's entry, if its time has not come."""
        entry = self._entries.get(run)
        if entry is not None and entry.place is _Place.LATER:
            self.drop(run)

    def entries(self, queue: str | None, place: Place | None, limit: int) -> list[Entry]:
        put = [entry for entry in self._entries.values() if entry.place is not _Place.LATER]
        later = [entry for _, _, entry in sorted(self._later) if entry.place is _Place.LATER]
        shown = (entry.shown() for entry in [*sorted(put, key=lambda entry: entry.number), *later])
        wanted = (each for each in shown if queue in (None, each.queue) and place in (None, each.place))
        return list(itertools.islice(wanted, min(max(limit, 1), limits.LIST_LIMIT)))

    def _leave_line(self, key: tuple[str, str], entry: _Entry) -> None:
        line = self._keys[key]
        line.remove(entry)
        if not line:
            del self._keys[key]
        elif line[0].place is _Place.BEHIND:
            self._make_ready(line[0])

    def _held(self, claim: Claim) -> _Entry:
        entry = self._entries.get(claim.run)
        if entry is None or entry.claim is None:
            raise Fenced(f"run {claim.run!r} is no longer claimed")
        if (entry.claim.number, entry.claim.worker) != (claim.number, claim.worker):
            raise Fenced(f"run {claim.run!r} is claimed by another: {entry.claim.worker!r}")
        return entry

    def _make_ready(self, entry: _Entry) -> None:
        entry.place = _Place.READY
        entry.due = inf
        meta = entry.meta
        ready = self._ready.setdefault((meta.queue, meta.priority), {}).setdefault(meta.actor, [])
        heapq.heappush(ready, (entry.number, entry))
        self._wake()

    def _wake(self) -> None:
        for changed in self._waiting:
            changed.set()

    def _take(self, queues: Sequence[str], worker: str, lease: float, without: Collection[str]) -> Claim | None:
        now = self._clock()
        self._turn(now)
        looks = (self._oldest(queues, priority, without) for priority in order(self._given))
        entry = next((found for found in looks if found is not None), None)
        if entry is None:
            return None
        self._given += 1
        heapq.heappop(self._ready[entry.meta.queue, entry.meta.priority][entry.meta.actor])
        return self._give(entry, worker, lease)

    def _give(self, entry: _Entry, worker: str, lease: float) -> Claim:
        # Numbers are drawn from the store's one count: also of a run that comes again they only grow.
        claim = Claim(meta=entry.meta, worker=worker, number=next(self._count), crashes=entry.crashes)
        entry.place = _Place.CLAIMED
        entry.claim = claim
        entry.claims = claim.number
        entry.lease = lease
        entry.doubted = False
        self._set_due(entry, self._clock() + lease)
        return claim

    def _oldest(self, queues: Sequence[str], priority: Priority, without: Collection[str]) -> _Entry | None:
        """The entry of this priority that was put first of those ready in `queues`."""
        heads = (head for name in queues for head in self._heads(name, priority, without))
        return min(heads, key=lambda entry: entry.number, default=None)

    def _heads(self, queue: str, priority: Priority, without: Collection[str]) -> Iterator[_Entry]:
        """The first one ready of each actor."""
        actors = self._ready.get((queue, priority), {})
        for actor, ready in list(actors.items()):
            while ready and ready[0][1].place is not _Place.READY:  # dropped meanwhile
                heapq.heappop(ready)
            if not ready:
                del actors[actor]
            elif actor not in without:
                yield ready[0][1]

    def _set_due(self, entry: _Entry, due: float) -> None:
        entry.due = due
        if due < entry.timer:
            entry.timer = due
            heapq.heappush(self._timers, (due, next(self._count), entry))

    def _turn(self, now: float) -> None:
        """Put those whose time has come; make ready what is due: delays that are over, claims whose lease lapsed."""
        self._put_due()
        passed = now - self._looked
        self._looked = now
        while self._timers and self._timers[0][0] <= now:
            entry = heapq.heappop(self._timers)[-1]
            entry.timer = inf
            if entry.due > now:  # renewed meanwhile, or no longer timed
                if entry.due < inf:
                    self._set_due(entry, entry.due)
            elif entry.place is _Place.CLAIMED and passed > entry.lease / 2 and not entry.doubted:
                # What stopped the queue may have stopped the holder too: half a lease to renew (as model/lease.py).
                entry.doubted = True
                self._set_due(entry, now + entry.lease / 2)
            elif entry.place is not _Place.GONE:
                entry.crashes += entry.place is _Place.CLAIMED
                entry.claim = None
                self._make_ready(entry)

    def _put_due(self) -> None:
        now = self._wall() if self._later else 0.0
        while self._later and (self._later[0][0] <= now or self._later[0][2].place is _Place.GONE):
            entry = heapq.heappop(self._later)[2]
            if entry.place is _Place.LATER:
                entry.number = next(self._count)
                self._enter(entry)

    def _until_due(self) -> float:
        """Seconds until the next entry may become claimable by itself."""
        lapse = self._timers[0][0] - self._clock() if self._timers else inf
        start = self._later[0][0] - self._wall() if self._later else inf
        return max(min(lapse, start), 0.0)

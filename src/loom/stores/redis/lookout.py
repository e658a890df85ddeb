"""Sees which claims of others have lapsed, and which pauses are over, in the queues that this process serves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from math import inf

from loom.model import limits
from loom.tasks import TaskSet

from .client.link import Reply
from .standing import Standing, Stood

__all__ = ["Lookout"]


class Lookout:
    """One look serves all workers of a process. It asks `call` for the server's functions; time is that of `clock`."""

    def __init__(self, call: Callable[..., Awaitable[Reply]], clock: Callable[[], float]) -> None:
        self._call = call
        self._clock = clock
        self._stood = Stood()
        self._served: dict[str, float] = {}
        """The queues that are looked at, and when somebody asked for each last."""
        self._lapsed: dict[str, Standing] = {}
        """By name, what had lapsed at the last look and is not known to have been taken since."""
        self._shortest = inf
        self._look_at = -inf
        self._looks = TaskSet()
        self._looking: asyncio.Task[None] | None = None

    @property
    def due(self) -> float:
        """In how many seconds to look again."""
        return max(self._look_at - self._clock(), 0.0)

    async def aclose(self) -> None:
        """The servers are closed: what is under way fails."""
        await self._looks.wait_out()

    async def look(self, queues: Collection[str]) -> None:
        """At these queues too, if it is time, or the first look at one of them. Whoever comes meanwhile waits for the
        same look; it goes on without who began it."""
        now = self._clock()
        known = self._served.keys() >= set(queues)
        self._served.update(dict.fromkeys(queues, now))
        if not known or (now >= self._look_at and self._looking is None):
            self._begin(now)
        if self._looking is not None:
            await asyncio.shield(self._looking)

    def _begin(self, now: float) -> None:
        self._look_at = now + self._apart
        self._served = {queue: at for queue, at in self._served.items() if now - at < limits.SERVED}
        self._looking = self._looks.spawn(self._look(tuple(self._served)), "loom-redis-look")
        self._looking.add_done_callback(self._looked)

    def _looked(self, looking: asyncio.Task[None]) -> None:
        if not looking.cancelled():
            looking.exception()  # seen: whoever waited for it may have left
        if self._looking is looking:
            self._looking = None

    def lapsed(self, queues: Collection[str], without: Collection[str]) -> list[Standing]:
        """What somebody may take over who serves these queues, but not these actors."""
        return [one for one in self._lapsed.values() if one.queue in queues and one.actor not in without]

    def forget(self, taken: Iterable[Standing]) -> None:
        """They have not lapsed, or not any more."""
        for one in taken:
            self._lapsed.pop(one.name, None)

    def saw(self, renewals: bytes) -> None:
        """Some call told at what the counter is."""
        self._stood.look(int(renewals), self._clock(), apart=self._apart)

    def saw_while_renewing(self, renewals: bytes) -> None:
        """A worker without room looks when it renews."""
        if self._clock() - self._stood.looked >= limits.OBSERVE:
            self.saw(renewals)

    @property
    def _apart(self) -> float:
        """Looks are so far apart, in seconds."""
        return min(limits.OBSERVE, self._shortest / 4)

    async def _look(self, queues: Sequence[str]) -> None:
        renewals, names = await self._call("look", *queues)
        first = [Standing.of(name.decode()) for name in names]
        self._shortest = min((one.about for one in first if not one.paused), default=inf)
        self.saw(renewals)
        near = [one for one, stood in self._stood.stood(first) if stood > one.about - self._apart]
        now, due = self._clock(), self._apart
        lapsed = {}
        for one, stood in self._stood.stood(await self._unrenewed(near)):
            if stood >= one.lease:
                lapsed[one.name] = one
            else:
                due = min(due, one.lease - stood)
        self._lapsed = lapsed
        self._look_at = now + due

    async def _unrenewed(self, kinds: Sequence[Standing]) -> list[Standing]:
        """What of these kinds may lapse before the next look."""
        if not kinds:
            return []
        now = self._clock()
        bounds = [(one.kind, self._stood.unrenewed_for(one.about - self._apart, now) or 0) for one in kinds]
        names = await self._call("unrenewed", *(arg for bound in bounds for arg in bound))
        return [Standing.of(name.decode()) for name in names]

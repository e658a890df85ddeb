"""The queue, as calls of the server-side functions. Liveness is judged here, by this process's own clock."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import uuid
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any

from loom.model import limits
from loom.model.errors import Conflict, Damaged, Fenced
from loom.model.ports import Unwatch
from loom.model.priority import PRIORITIES, rank
from loom.model.run import Claim, Entry, Meta, Place
from loom.stores.stored import join, split
from loom.stores.watchers import pause
from loom.wire.json import encode

from .client.functions import QUEUE_LOOK
from .client.link import Reply
from .client.replies import Refused
from .client.servers import Servers
from .keys import Keys
from .lookout import Lookout
from .notices import Notices
from .standing import Standing

__all__ = ["RedisQueue"]

_log = logging.getLogger("loom.store")

LAPSED = 20
"""Lapsed claims passed to one `claim` call: tenths of a millisecond of the server's time, which count when a thousand
are taken over at once."""

RENEWED = 500
"""Claims that one call renews: a few milliseconds of the server's time."""


class RedisQueue:
    """The `WorkQueue`."""

    def __init__(self, servers: Servers, keys: Keys, notices: Notices, clock: Callable[[], float]) -> None:
        self._servers = servers
        self._keys = keys
        self._notices = notices
        self._lookout = Lookout(self._call, clock)
        self.acknowledged: Callable[[str], Awaitable[None]] = _nothing
        """Called with the run of each acknowledged claim."""
        self._unanswered: dict[str, str] = {}
        """By worker, the claim call whose reply never came: asked again by the same name, it gives the same claim."""

    async def put(self, meta: Meta) -> None:
        await self._servers.write("put", self._keys.queues, *_putting(meta))

    async def claim(
        self, queues: Sequence[str], worker: str, *, lease: float, wait: float, exclude: Collection[str] = ()
    ) -> Claim | None:
        claim, due = await self._take(queues, worker, lease, exclude)
        if claim is not None or wait <= 0:
            return claim
        loop = asyncio.get_running_loop()
        end = loop.time() + wait
        changed, unwatch = self._watch()
        try:
            while True:
                claim, due = await self._take(queues, worker, lease, exclude)
                left = end - loop.time()
                if claim is not None or left <= 0:
                    return claim
                await pause(changed, min(left, due))
        finally:
            unwatch()

    async def force_claim(self, meta: Meta, worker: str, *, lease: float) -> Claim:
        try:
            found = await self._servers.write("seize", self._keys.queues, *_putting(meta), worker, repr(lease))
        except Refused:
            raise Conflict(f"run {meta.run!r} is in another queue", details={"run": meta.run}) from None
        return _claim(found, worker)

    async def renew(self, claim: Claim) -> None:
        if not all(await self.renew_all([claim])):
            raise _lost(claim)

    async def renew_all(self, claims: Sequence[Claim]) -> list[bool]:
        held: list[bool] = []
        for start in range(0, len(claims), RENEWED):
            some = claims[start : start + RENEWED]
            args = [arg for claim in some for arg in (claim.run, claim.worker, claim.number)]
            renewals, answers = await self._call("renew", *args)
            held += map(bool, answers)
            self._lookout.saw_while_renewing(renewals)
        return held

    async def aclose(self) -> None:
        await self._lookout.aclose()

    async def ack(self, claim: Claim) -> None:
        await self._held("ack", claim)
        await self.acknowledged(claim.run)

    async def release(self, claim: Claim, *, delay: float = 0.0) -> None:
        await self._held("release", claim, repr(max(delay, 0.0)))

    async def forget(self, run: str, place: str = "") -> None:
        """Let the run's entry go, whoever holds it; if a place is named, only from there."""
        await self._call("forget", run, *((place,) if place else ()))

    async def unqueued(self, runs: Sequence[str]) -> list[str]:
        """Those of the runs that the queue does not hold."""
        return [run.decode() for run in await self._call("unqueued", *runs)] if runs else []

    async def list_entries(
        self, *, queue: str | None = None, place: Place | None = None, limit: int = 100
    ) -> list[Entry]:
        limit = min(max(limit, 1), limits.LIST_LIMIT)
        found: list[Entry] = []
        for part in ("all", "later"):
            looked, seen = 0, QUEUE_LOOK
            while seen == QUEUE_LOOK and len(found) < limit:
                rows, seen = await self._call("entries", part, looked, queue or "", place or "", limit - len(found))
                found += [_entry(*row) for row in rows]
                looked += seen
        return found

    # --- claiming ----------------------------------------------------------------------------------------------------

    async def _take(
        self, queues: Sequence[str], worker: str, lease: float, exclude: Collection[str] = ()
    ) -> tuple[Claim | None, float]:
        """A claim; else in how many seconds to ask again. What has lapsed is looked for before, backlog or not."""
        await self._lookout.look(queues)
        while True:
            some = self._lookout.lapsed(queues, exclude)
            if len(some) > LAPSED:  # others know the same ones, and take them over at the same time
                some = random.sample(some, LAPSED)
            found, later = await self._ask(queues, worker, lease, exclude, some)
            self._lookout.forget(one for one in some if found is None or one.run == found[4].decode())
            if found:
                try:
                    return _claim(found, worker), 0.0
                except Damaged as damage:
                    await self._let_go(found, worker, damage)
            elif not some:
                looks = self._lookout.due
                return None, looks if later is None else max(min(looks, int(later) / 1000), 0.0)

    async def _ask(
        self, queues: Sequence[str], worker: str, lease: float, exclude: Collection[str], lapsed: Sequence[Standing]
    ) -> tuple[Sequence[Any] | None, bytes | None]:
        """What is given; else in how many ms the next delayed start's time comes."""
        call = self._unanswered.pop(worker, None) or uuid.uuid4().hex
        seen = encode([one.name for one in lapsed])
        try:
            reply = await self._call(
                "claim", worker, call, repr(lease), encode(list(queues)), encode(list(exclude)), seen
            )
        except BaseException:  # a cancel too: it may have been given, and is asked for again by the same name
            self._unanswered[worker] = call
            raise
        self._lookout.saw(reply[0])
        return reply[1], reply[2] if reply[1] is None else None

    async def _let_go(self, found: Sequence[Any], worker: str, damage: Damaged) -> None:
        """Others' runs go on. If it is the queue's copy that is damaged, a sweep puts the run back from its own."""
        _log.error("let go from the queue: %s", damage)
        _, _, number, _, run = found
        with contextlib.suppress(Refused):  # it has lapsed meanwhile: whoever claims it now does this
            await self._call("ack", run, worker, int(number))

    def _watch(self) -> tuple[asyncio.Event, Unwatch]:
        changed = asyncio.Event()
        return changed, self._notices.watch(self._keys.queue, lambda notice: changed.set())

    # --- inside ------------------------------------------------------------------------------------------------------

    async def _call(self, function: str, *args: str | bytes | int) -> Reply:
        return await self._servers.call(function, self._keys.queues, *args)

    async def _held(self, function: str, claim: Claim, *args: str) -> Reply:
        try:
            return await self._call(function, claim.run, claim.worker, claim.number, *args)
        except Refused:
            raise _lost(claim) from None


async def _nothing(run: str) -> None:
    pass


def _lost(claim: Claim) -> Fenced:
    return Fenced(f"run {claim.run!r} is no longer claimed by {claim.worker!r} as {claim.number}")


def _putting(meta: Meta) -> tuple[str | bytes, ...]:
    later = "" if meta.not_before is None else repr(meta.not_before)
    return meta.run, *split(meta), meta.queue, meta.actor, meta.key or "", str(rank(meta.priority)), later


def _claim(found: Sequence[Any], worker: str) -> Claim:
    meta, input, number, crashes, run = found
    return Claim(meta=join(run.decode(), meta, input), worker=worker, number=int(number), crashes=int(crashes))


def _entry(
    run: bytes, queue: bytes, actor: bytes, key: bytes, rank: bytes, place: bytes, worker: bytes, number: bytes,
    crashes: bytes, stored: bytes,
) -> Entry:  # fmt: skip
    try:
        meta = join(run.decode(), stored, None)
    except Damaged:  # shown all the same: it is told by who claims it
        meta = Meta(run=run.decode(), actor=actor.decode())
    return Entry(
        run=meta.run,
        actor=actor.decode(),
        queue=queue.decode(),
        key=key.decode() or None,
        priority=PRIORITIES[int(rank)],
        place=place.decode(),  # type: ignore[arg-type]
        worker=worker.decode() or None,
        number=int(number),
        crashes=int(crashes),
        created=meta.created,
        not_before=meta.not_before,
    )

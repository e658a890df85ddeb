"""Stores and engines that are broken in one place each: what the simulation has to find."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest
from msgspec.structs import replace

from loom.engine.follow.hub import Feed
from loom.engine.run.inbox import Inbox
from loom.engine.run.worker import Worker
from loom.engine.run.writer import Writer
from loom.model import limits
from loom.model.chunk import Batch, Page
from loom.model.cursor import Cursor
from loom.model.errors import Conflict, Fenced, LoomError
from loom.model.ports import Fence
from loom.model.run import Claim
from loom.stores.memory import MemoryStore

__all__ = ["ENGINES", "STORES"]


class NoFenceCheck(MemoryStore):
    """Takes what continues the log, whoever wrote it."""

    def append_nowait(self, run: str, batch: Batch, *, end: bool = False) -> bool:
        log = self._outboxes[run]
        if batch.first == log.tail + 1 and not log.ended:
            batch = replace(batch, epoch=log.epoch)
        return super().append_nowait(run, batch, end=end)


class NoTailCheck(MemoryStore):
    """Adds whatever the newest writer sends, also what it sends again."""

    def append_nowait(self, run: str, batch: Batch, *, end: bool = False) -> bool:
        log = self._outboxes[run]
        if batch.epoch == log.epoch and not log.ended:
            batch = replace(batch, first=log.tail + 1, last=log.tail + len(batch))
        return super().append_nowait(run, batch, end=end)


class LeaseTooShort(MemoryStore):
    """Gives a run away while its holder may still take his time to renew."""

    async def claim(self, queues: Any, worker: str, *, lease: float, wait: float, without: Any = ()) -> Claim | None:
        return await super().claim(queues, worker, lease=lease / 3, wait=wait, without=without)


class ClaimedTwice(MemoryStore):
    """Forgets now and then that it has given a run away."""

    async def claim(self, queues: Any, worker: str, *, lease: float, wait: float, without: Any = ()) -> Claim | None:
        claim = await super().claim(queues, worker, lease=lease, wait=wait, without=without)
        if claim is not None and claim.number % 7 == 0:
            self._queue.drop(claim.run)
            self._queue.put(claim.meta)
        return claim


class AnyoneAcks(MemoryStore):
    """Lets go of a run at the word of who held it once."""

    async def ack(self, claim: Claim) -> None:
        self._queue.drop(claim.run)


class AnyoneRenews(MemoryStore):
    """Lets who held a run once believe that he does still."""

    async def renew(self, claim: Claim) -> None:
        entry = self._queue._entries.get(claim.run)
        await super().renew(entry.claim if entry is not None and entry.claim is not None else claim)

    async def renew_all(self, claims: Sequence[Claim]) -> list[bool]:
        for claim in claims:
            await self.renew(claim)
        return [True] * len(claims)


class LapsedStaysLapsed(MemoryStore):
    """Never takes a run over from a worker that was lost."""

    async def claim(self, queues: Any, worker: str, *, lease: float, wait: float, without: Any = ()) -> Claim | None:
        return await super().claim(queues, worker, lease=1e9, wait=wait, without=without)


class ResumesOneLate(MemoryStore):
    """Reads on one chunk behind the cursor."""

    async def read(
        self, log: str, after: Cursor | None = None, *, limit: int = limits.PAGE_CHUNKS, wait: float = 0.0
    ) -> Page:
        page = await super().read(log, after, limit=limit, wait=wait)
        if after is None or not page.batches or len(page.batches[0]) < 2:
            return page
        first = page.batches[0]
        return replace(page, batches=(first.slice(first.first + 1, first.last), *page.batches[1:]))


class ResumesOneEarly(MemoryStore):
    """Gives the chunk at the cursor again."""

    async def read(
        self, log: str, after: Cursor | None = None, *, limit: int = limits.PAGE_CHUNKS, wait: float = 0.0
    ) -> Page:
        before = after
        if after is not None and after.seq > 1:
            earlier = Cursor(after.epoch, after.seq - 1)
            before = earlier if self._continues(log, earlier) else after
        return await super().read(log, before, limit=limit, wait=wait)

    def _continues(self, log: str, cursor: Cursor) -> bool:
        return log in self._outboxes and self._runs[log].head().cursor_at(cursor.seq) == cursor


class EndLost(MemoryStore):
    """Takes the last chunk, and not that it is the last."""

    def append_nowait(self, run: str, batch: Batch, *, end: bool = False) -> bool:
        return super().append_nowait(run, batch, end=end and batch.first % 5 != 0)


class ForgetsTheLast(MemoryStore):
    """A new fence throws away what was acknowledged just before."""

    async def fence(self, run: str, token: str, *, failures: int = 0) -> Fence:
        log = self._outboxes.get(run)
        if log is not None and not log.ended and len(log.batches) > 1:
            log.batches.pop()
            log.tail = log.batches[-1].last
        return await super().fence(run, token, failures=failures)


STORES: list[type[MemoryStore]] = [
    NoFenceCheck, NoTailCheck, LeaseTooShort, ClaimedTwice, AnyoneAcks, AnyoneRenews, LapsedStaysLapsed,
    ResumesOneLate, ResumesOneEarly, EndLost, ForgetsTheLast,
]  # fmt: skip


# --- engines ---------------------------------------------------------------------------------------------------------


def trusts_notices(patch: pytest.MonkeyPatch) -> None:
    """A notice's batch is taken, whether it continues what was read or not."""
    patch.setattr(Feed, "_continues", lambda self, batch: self._anchored)


def never_looks_again(patch: pytest.MonkeyPatch) -> None:
    """A notice without a batch, which says no more than look, is passed over."""
    notice = Feed._notice
    patch.setattr(Feed, "_notice", lambda self, told: None if told.batch is None else notice(self, told))


def sends_the_next(patch: pytest.MonkeyPatch) -> None:
    """A batch whose outcome is unknown is taken for stored."""

    async def taken(self: Writer, batch: Batch, end: bool) -> None:
        return None

    patch.setattr(Writer, "_append_again", taken)


def adopts_the_tail(patch: pytest.MonkeyPatch) -> None:
    """Who was fenced draws a new fence, and goes on."""

    class Persistent:
        def __init__(self, logs: Any) -> None:
            self._logs = logs

        def append_nowait(self, run: str, batch: Batch, *, end: bool = False) -> bool:
            return False

        async def append(self, run: str, batch: Batch, *, end: bool = False) -> Cursor:
            try:
                return await self._logs.append(run, batch, end=end)  # type: ignore[no-any-return]
            except (Fenced, Conflict):
                fence = await self._logs.fence(run, f"again {batch.epoch} {batch.first}")
                moved = replace(batch, epoch=fence.epoch, first=fence.tail + 1, last=fence.tail + len(batch))
                return await self._logs.append(run, moved, end=end)  # type: ignore[no-any-return]

    made = Writer.__init__
    patch.setattr(
        Writer, "__init__", lambda self, logs, run, fence: made(self, cast(Any, Persistent(logs)), run, fence)
    )


def never_renews(patch: pytest.MonkeyPatch) -> None:
    """A worker that claims, and does not say that it lives."""

    async def nothing(self: Worker, held: Any) -> None:
        return None

    patch.setattr(Worker, "_renew", nothing)


def acks_first(patch: pytest.MonkeyPatch) -> None:
    """A worker that acknowledges a run when it takes it."""
    drive = Worker._drive

    async def hasty(self: Worker, claim: Claim, runner: Any) -> Any:
        with contextlib.suppress(LoomError):
            await self._store.ack(claim)
        return await drive(self, claim, runner)

    patch.setattr(Worker, "_drive", hasty)


def deaf_to_cancel(patch: pytest.MonkeyPatch) -> None:
    """What a run is told before it listens is not read."""

    async def nothing(self: Inbox) -> bool:
        return True

    patch.setattr(Inbox, "read", nothing)


ENGINES: list[Callable[[pytest.MonkeyPatch], None]] = [
    trusts_notices, never_looks_again, sends_the_next, adopts_the_tail, never_renews, acks_first, deaf_to_cancel,
]  # fmt: skip

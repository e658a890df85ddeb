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
from loom.model.chunk import Batch, Page
from loom.model.cursor import Cursor
from loom.model.errors import Conflict, Fenced, LoomError
from loom.model.ports import Commit, Fence
from loom.model.run import Claim
from loom.stores.memory import MemoryStore

__all__ = ["ENGINES", "STORES"]


class NoFenceCheck(MemoryStore):
    """Takes what continues the log, whoever wrote it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        append = self.logs.append_nowait

        def append_nowait(log: str, batch: Batch, commit: Commit | None = None) -> bool:
            known = self.logs._logs[log]
            if batch.first == known.tail + 1 and not known.ended:
                batch = replace(batch, epoch=known.writer)
            return append(log, batch, commit)

        self.logs.append_nowait = append_nowait  # type: ignore[method-assign]


class NoTailCheck(MemoryStore):
    """Adds whatever the newest writer sends, also what it sends again."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        append = self.logs.append_nowait

        def append_nowait(log: str, batch: Batch, commit: Commit | None = None) -> bool:
            known = self.logs._logs[log]
            if batch.epoch == known.writer and not known.ended:
                batch = replace(batch, first=known.tail + 1, last=known.tail + len(batch))
            return append(log, batch, commit)

        self.logs.append_nowait = append_nowait  # type: ignore[method-assign]


class LeaseTooShort(MemoryStore):
    """Gives a run away while its holder may still take his time to renew."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        claim = self.queue.claim

        async def shorter(queues: Any, worker: str, *, lease: float, **more: Any) -> Claim | None:
            return await claim(queues, worker, lease=lease / 3, **more)

        self.queue.claim = shorter  # type: ignore[method-assign]


class ClaimedTwice(MemoryStore):
    """Forgets now and then that it has given a run away."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        claim = self.queue.claim

        async def twice(*args: Any, **more: Any) -> Claim | None:
            given = await claim(*args, **more)
            if given is not None and given.number % 7 == 0:
                self.queue.drop(given.run)
                await self.queue.put(given.meta)
            return given

        self.queue.claim = twice  # type: ignore[method-assign]


class AnyoneAcks(MemoryStore):
    """Lets go of a run at the word of who held it once."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)

        async def ack(claim: Claim) -> None:
            self.queue.drop(claim.run)

        self.queue.ack = ack  # type: ignore[method-assign]


class AnyoneRenews(MemoryStore):
    """Lets who held a run once believe that he does still."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        renew = self.queue.renew

        async def whoever(claim: Claim) -> None:
            entry = self.queue._entries.get(claim.run)
            await renew(entry.claim if entry is not None and entry.claim is not None else claim)

        async def all_of(claims: Sequence[Claim]) -> list[bool]:
            for claim in claims:
                await whoever(claim)
            return [True] * len(claims)

        self.queue.renew = whoever  # type: ignore[method-assign]
        self.queue.renew_all = all_of  # type: ignore[method-assign]


class LapsedStaysLapsed(MemoryStore):
    """Never takes a run over from a worker that was lost."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        claim = self.queue.claim

        async def endless(queues: Any, worker: str, *, lease: float, **more: Any) -> Claim | None:
            return await claim(queues, worker, lease=1e9, **more)

        self.queue.claim = endless  # type: ignore[method-assign]


class ResumesOneLate(MemoryStore):
    """Reads on one chunk behind the cursor."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        read = self.logs.read

        async def late(log: str, after: Cursor | None = None, **more: Any) -> Page:
            page = await read(log, after, **more)
            if after is None or not page.batches or len(page.batches[0]) < 2:
                return page
            first = page.batches[0]
            return replace(page, batches=(first.slice(first.first + 1, first.last), *page.batches[1:]))

        self.logs.read = late  # type: ignore[method-assign]


class ResumesOneEarly(MemoryStore):
    """Gives the chunk at the cursor again."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        read = self.logs.read

        async def early(log: str, after: Cursor | None = None, **more: Any) -> Page:
            before = after
            if after is not None and after.seq > 1:
                earlier = Cursor(after.epoch, after.seq - 1)
                before = earlier if self._continues(log, earlier) else after
            return await read(log, before, **more)

        self.logs.read = early  # type: ignore[method-assign]

    def _continues(self, log: str, cursor: Cursor) -> bool:
        known = self.logs._logs.get(log)
        return known is not None and known.run is not None and known.info().cursor_at(cursor.seq) == cursor


class EndLost(MemoryStore):
    """Takes the last chunk, and not that it is the last."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        append = self.logs.append_nowait

        def append_nowait(log: str, batch: Batch, commit: Commit | None = None) -> bool:
            return append(log, batch, commit if batch.first % 5 != 0 else None)

        self.logs.append_nowait = append_nowait  # type: ignore[method-assign]


class ForgetsTheLast(MemoryStore):
    """A new fence throws away what was acknowledged just before."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        fence = self.logs.fence

        async def forgetting(log: str, token: str, *, failures: int = 0) -> Fence:
            known = self.logs._logs.get(log)
            if known is not None and not known.ended and len(known.batches) > 1:
                known.batches.pop()
                known.tail = known.batches[-1].last
            return await fence(log, token, failures=failures)

        self.logs.fence = forgetting  # type: ignore[method-assign]


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

    async def hasty(self: Worker, claim: Claim, *more: Any) -> Any:
        with contextlib.suppress(LoomError):
            await self._store.queue.ack(claim)
        return await drive(self, claim, *more)

    patch.setattr(Worker, "_drive", hasty)


def deaf_to_cancel(patch: pytest.MonkeyPatch) -> None:
    """What a run is told before it listens is not read."""

    async def nothing(self: Inbox) -> bool:
        return True

    patch.setattr(Inbox, "_read", nothing)


ENGINES: list[Callable[[pytest.MonkeyPatch], None]] = [
    trusts_notices, never_looks_again, sends_the_next, adopts_the_tail, never_renews, acks_first, deaf_to_cancel,
]  # fmt: skip

"""Watches the owner of a run, by its heartbeat, which the store keeps."""

from __future__ import annotations

import asyncio
import time

from loom.backoff import REPEATABLE, Backoff
from loom.model import limits
from loom.model.ports import RunStore
from loom.model.run import Head

__all__ = ["OwnerWatch"]


class OwnerWatch:
    """Watches one owned run. The owner's silence counts from when it was last heard of, before this watch began for
    half a lease at most: an outage, or a clock that was set, may only seem to be its silence."""

    def __init__(self, runs: RunStore, head: Head, lease: float) -> None:
        self._runs = runs
        self._run = head.meta.run
        self._lease = lease
        self._beat = head.beat
        silence = time.time() - (head.meta.created if head.heard is None else head.heard)
        self._seen = time.monotonic() - min(max(silence, 0.0), lease / 2)
        self.alive: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done once the owner is known to be there: it was heard of within its lease, or since this watch began."""
        if silence < lease:
            self.alive.set_result(None)

    async def wait_gone(self) -> None:
        """Until the owner has been silent for its lease. Only silence while the store answers counts: in an outage the
        owner cannot be heard of. Raises `LogNotFound`."""
        backoff = Backoff.of_store()
        while True:
            try:
                head = await self._runs.get(self._run, full=False)
            except REPEATABLE:
                await backoff.pause()
                self._seen = time.monotonic()
                continue
            if self._is_gone(head.beat):
                return
            await self._pause()

    def _is_gone(self, beat: int) -> bool:
        now = time.monotonic()
        if beat != self._beat:
            self._beat, self._seen = beat, now
            if not self.alive.done():
                self.alive.set_result(None)
        return now - self._seen >= self._lease

    async def _pause(self) -> None:
        now, look = time.monotonic(), self._lease / limits.RENEW_FRACTION
        pause = min(look, max(0.0, self._seen + self._lease - now))
        await asyncio.sleep(pause)
        if time.monotonic() - now > pause + look:
            self._seen = time.monotonic()  # it was this process that stood still: the owner may only seem silent

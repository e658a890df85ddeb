"""Finds publishers that died, and ends their runs: so that nobody reads on for ever.

A publisher holds its run's entry in a queue of its own; what can be claimed there has lapsed. Workers keep watch, and
every process in which somebody follows a run of a store.
"""

from __future__ import annotations

import asyncio
import logging

from loom.model import limits
from loom.model.errors import Conflict, ErrorInfo, Fenced, HandleClosed, LogEnded, LogNotFound
from loom.model.names import PUBLISHED
from loom.model.ports import Store
from loom.model.run import Claim

from .ending import end_run
from .trouble import Trouble

__all__ = ["Watchman"]

WATCH_PUBLISHED = 2.0
"""How often workers, and who follows runs in a store, look for publishers that died."""

_log = logging.getLogger("loom.worker")


class Watchman:
    """Looks every `WATCH_PUBLISHED` seconds, as `name`, for as long as `run` goes on."""

    def __init__(self, store: Store, name: str, trouble: Trouble | None = None) -> None:
        self._store = store
        self._name = name
        self._trouble = trouble or Trouble(_log, "watching for lost publishers")

    async def run(self) -> None:
        """For ever; its owner cancels it."""
        while True:
            await asyncio.sleep(WATCH_PUBLISHED)
            try:
                await self.look()
            except HandleClosed:
                return
            except Exception as error:  # a store's own fault: a watchman that goes would leave readers alone
                self._trouble.met(self, error)
            else:
                self._trouble.over(self)

    async def look(self) -> int:
        """End what has lapsed; returns how many runs that were."""
        ended = 0
        while (claim := await self._claim()) is not None:
            ended += await self._end(claim)
        return ended

    async def _claim(self) -> Claim | None:
        return await self._store.queue.claim([PUBLISHED], self._name, lease=limits.LEASE, wait=0.0)

    async def _end(self, claim: Claim) -> bool:
        try:
            head = await self._store.runs.create(claim.meta)  # its publisher may have died before it did so
            if not head.ended:
                fence = await self._store.logs.fence(claim.run, f"{self._name}:{claim.number}")
                info = ErrorInfo("run_lost", "the run was lost: its publisher has not been heard of")
                await end_run(self._store.logs, claim.run, fence, info)
                _log.warning("run %s: its publisher was lost", claim.run)
            await self._store.queue.ack(claim)
        except (Fenced, Conflict):
            return False  # somebody goes on with it
        except (LogEnded, LogNotFound):
            return False  # it has ended, or was dropped: its entry lapses once more, and goes then
        return not head.ended

"""Runs that wait because no worker serves their queue. The queue itself waits in silence: a worker may still come."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence

from loom.model import limits
from loom.model.ports import Transport
from loom.model.run import Head, Meta, WorkerInfo
from loom.tasks import TaskSet

__all__ = ["UnservedQueues", "unserved", "unserved_note"]

UNSERVED_PAUSE = 60.0
"""A client warns of a queue that no worker serves this often at most, however many runs it starts in it."""

_log = logging.getLogger("loom.client")


def unserved(head: Head, workers: Sequence[WorkerInfo]) -> str | None:
    """A sentence that names the run's queue, if the run is due and none of the registered `workers` serves it."""
    meta = head.meta
    if head.ended or meta.published or (meta.not_before or 0.0) > time.time():
        return None
    running = head.state == "running"  # a worker that drains takes nothing new, but still drives what it has
    if any(meta.queue in worker.queues and (running or not worker.draining) for worker in workers):
        return None
    return f"no worker serves queue {meta.queue}"


async def unserved_note(transport: Transport, run: str) -> str | None:
    """`unserved`, as the transport knows it now; None also while that cannot be found out."""
    try:
        head = await transport.head(run, full=False)
        return None if head.ended else unserved(head, await transport.list_workers())
    except Exception:  # a store's own fault, too: all that is lost is a note
        return None


class UnservedQueues:
    """Warns when a run that one client started waits in a queue that no worker serves; of each queue once in
    `UNSERVED_PAUSE` at most, whatever is started in it."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._looks: dict[str, asyncio.TimerHandle] = {}
        self._tasks = TaskSet()

    def started(self, meta: Meta) -> None:
        """Look at this run's queue in a while, unless that was done lately. Delayed runs wait by design."""
        if meta.queue not in self._looks and meta.not_before is None:
            loop = asyncio.get_running_loop()
            self._looks[meta.queue] = loop.call_later(limits.UNSERVED_AFTER, self._due, meta)

    def _due(self, meta: Meta) -> None:
        loop = asyncio.get_running_loop()
        self._looks[meta.queue] = loop.call_later(UNSERVED_PAUSE, self._looks.pop, meta.queue)
        self._tasks.spawn(self._look(meta), f"loom-unserved {meta.run}")

    async def _look(self, meta: Meta) -> None:
        note = await unserved_note(self._transport, meta.run)
        if note is not None:
            _log.warning("run %s waits: %s", meta.run, note)

    async def aclose(self) -> None:
        for timer in self._looks.values():
            timer.cancel()
        self._looks.clear()
        await self._tasks.aclose()

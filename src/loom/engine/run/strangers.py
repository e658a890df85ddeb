"""Runs of actors that a worker does not know: left for workers that do, as while a new release is rolled out."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection

from loom.backoff import REPEATABLE
from loom.engine.declare.registry import Registry
from loom.model import limits
from loom.model.ports import WorkerRegistry
from loom.model.run import Claim, Meta

__all__ = ["Strangers"]

STRANGER_PAUSE = 5.0
"""How long it claims none of them after it met one: as often workers tell what they know."""

_log = logging.getLogger("loom.worker")


class _Stranger:
    """An actor that is not ours: since when no worker is known to know it, and until when we claim none of its runs."""

    __slots__ = ("left_until", "since")

    def __init__(self, now: float) -> None:
        self.since = now
        self.left_until = now


class Strangers:
    """What one worker has met. A run that it leaves goes back to the queue as it was, and no attempt is counted."""

    def __init__(self, workers: WorkerRegistry, registry: Registry, worker: str) -> None:
        self._workers = workers
        self._registry = registry
        self._worker = worker
        self._met: dict[str, _Stranger] = {}

    @property
    def left_out(self) -> Collection[str]:
        """The actors whose runs are not to be claimed now."""
        now = time.monotonic()
        return [actor for actor, stranger in self._met.items() if stranger.left_until > now]

    def meet(self, claim: Claim) -> None:
        """It was claimed. If its actor is none of ours, the next claim leaves that out."""
        actor, now = claim.meta.actor, time.monotonic()
        if self._registry.find(actor) is not None:
            return
        self._forget_old(now)
        if actor not in self._met:
            self._met[actor] = _Stranger(now)
            _log.warning(
                "worker %s: no actor is named %r here (run %s): left to workers that have it; if there are none for "
                "%.0f s, its runs end with unknown_producer",
                self._worker, actor, claim.run, limits.STRANGER_WAIT,
            )  # fmt: skip
        stranger = self._met[actor]
        if now - stranger.since < limits.STRANGER_WAIT:
            stranger.left_until = now + STRANGER_PAUSE

    async def leaves(self, claim: Claim) -> bool:
        """Whether the run goes back to the queue: its actor is not ours, but may be another worker's."""
        stranger = self._met.get(claim.meta.actor)
        if stranger is None or self._registry.find(claim.meta.actor) is not None:
            return False
        known, now = await self._is_known_elsewhere(claim.meta), time.monotonic()
        if known:
            stranger.since = now
        if now - stranger.since >= limits.STRANGER_WAIT:
            return False
        stranger.left_until = now + STRANGER_PAUSE
        return True

    async def _is_known_elsewhere(self, meta: Meta) -> bool:
        try:
            workers = await self._workers.list_workers()
        except REPEATABLE:  # then it is not known to be unknown
            return True
        return any(
            meta.actor in worker.actors and meta.queue in worker.queues and not worker.draining for worker in workers
        )

    def _forget_old(self, now: float) -> None:
        """Names are whatever somebody started."""
        old = [actor for actor, stranger in self._met.items() if now - stranger.left_until > limits.STRANGER_WAIT * 10]
        for actor in old:
            del self._met[actor]

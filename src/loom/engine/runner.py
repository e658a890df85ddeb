"""The runner: drives one claimed run to its end, attempt by attempt. Nothing else ever drives a producer."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from typing import Any

from loom.model import limits
from loom.model.errors import (
    DEAD,
    Conflict,
    Damaged,
    ErrorInfo,
    Fenced,
    LogEnded,
    LogNotFound,
    LoomError,
)
from loom.model.ports import Fence, Store
from loom.model.run import Claim, Head, Meta
from loom.tasks import TaskSet, cancel_and_wait, spawn

from .attempt import Attempt, Ending, Job, Resources, Stop
from .backoff import Backoff
from .ending import end_run
from .failure import info_of
from .owner import OwnerWatch
from .producer import Producer
from .registry import Registry

__all__ = ["Runner"]

_log = logging.getLogger("loom.worker")


class Runner:
    """One claim's run. `run` returns when the claim is settled; cancelling `run` stops the producer and writes nothing
    (the lease is lost). `stop` asks for an orderly end."""

    def __init__(
        self, store: Store, registry: Registry, claim: Claim, resources: Resources, threads: asyncio.Semaphore
    ) -> None:
        self._registry = registry
        self._job = Job(store, claim, resources, threads)
        self._producer = registry.find(claim.meta.actor)

    @property
    def abandoned(self) -> asyncio.Task[Any] | None:
        """A producer that did not stop in time, still running."""
        return self._job.abandoned

    @property
    def lost(self) -> bool:
        """Whether the run was ended because this worker drains."""
        return self._job.lost

    @property
    def continues(self) -> bool:
        """Whether handing the run over loses nothing."""
        return self._producer is not None and self._producer.continues

    def stop(self, why: Stop) -> None:
        """Ask for an orderly end; the first reason counts."""
        self._job.stop(why)

    @property
    def exhausted(self) -> bool:
        """Whether more workers were lost with the run than it may survive."""
        return self._job.claim.crashes > self._max_crashes

    @property
    def _max_crashes(self) -> int:
        return limits.CRASHES if self._producer is None else self._producer.max_crashes

    async def run(self) -> Ending:
        """Drive the run until the claim is settled. Whatever else it raises counts as a lost worker."""
        try:
            return await (self._bury() if self.exhausted else self._open())
        except LogNotFound:
            return Ending.ENDED  # dropped under us: there is nothing left to do
        except LogEnded:
            return Ending.ENDED
        except (Fenced, Conflict) as error:
            _log.warning("run %s: stopped writing: %s", self._job.meta.run, error)
            return Ending.GIVEN_UP

    async def _bury(self) -> Ending:
        """End the run as a dead letter. First of all, and reading nothing: it may be what it holds that workers are
        lost by."""
        try:
            await self._create()
        except Exception:  # a log that is there may still be ended
            _log.exception("run %s: it is ended unread", self._job.meta.run)
        crashes = self._job.claim.crashes
        reason = f"the run was lost: its worker was lost {crashes} times (max_crashes={self._max_crashes})"
        return await self._refuse(ErrorInfo("run_lost", reason, details={DEAD: True}))

    async def _open(self) -> Ending:
        try:
            head = await self._create()
            if head.ended:
                return Ending.ENDED
            if _misplaced(self._job.claim.meta, head.meta):
                return await self._put_right(head.meta)
            return await self._settle(head)
        except Damaged as damage:
            _log.error("run %s: it cannot be read: %s", self._job.meta.run, damage)
            return await self._refuse(damage.info)

    async def _create(self) -> Head:
        return await self._job.backoff.attempt(lambda: self._job.store.create(self._job.meta))

    async def _put_right(self, meta: Meta) -> Ending:
        """Two starts of one id, unlike in what the queue goes by, at once: the entry is the loser's, the log the
        winner's, and the log is the truth. Should we fail between the two, a sweep puts the run."""
        store = self._job.store
        await self._job.backoff.attempt(lambda: store.ack(self._job.claim))
        await self._job.backoff.attempt(lambda: store.put(meta))
        return Ending.GIVEN_UP

    async def _settle(self, head: Head) -> Ending:
        # The log's meta is the truth: an entry put twice under one id may carry another's request.
        self._job.meta = head.meta
        try:
            producer = self._producer = self._registry.get(self._job.meta.actor)
            arguments = producer.inputs.decode(bytes(self._job.meta.input))
        except LoomError as error:
            return await self._refuse(error.info)
        except (Exception, SystemExit) as error:  # user code: a model's validators
            return await self._refuse(info_of(error))
        await self._job.backoff.attempt(self._job.inbox.read)
        self._job.following = spawn(self._job.inbox.follow(), f"loom-inbox {self._job.meta.run}")
        try:
            async with TaskSet() as tasks:
                await self._watch(tasks, head)
                return await self._attempts(producer, arguments)
        finally:
            await cancel_and_wait(self._job.following)

    async def _refuse(self, error: ErrorInfo) -> Ending:
        """End the run with `error`, no producer being touched."""
        await end_run(self._job.store, self._job.meta.run, await self._fence("end"), error)
        return Ending.ENDED

    async def _watch(self, tasks: TaskSet, head: Head) -> None:
        """Arm what may stop the run from outside; waits until it is known that its owner wants it."""
        meta = self._job.meta
        if meta.timeout is not None:
            # Wall-clock time bridges workers; a jump of the clock can shorten the wait, never stretch it.
            used = max(0.0, time.time() - head.started) if head.started is not None else 0.0
            tasks.spawn(self._watch_deadline(max(0.0, meta.timeout - used)), f"loom-deadline {meta.run}")
        if meta.owner_lease is not None:
            owner = OwnerWatch(self._job.store, head, meta.owner_lease)
            tasks.spawn(self._guard(self._watch_owner(owner)), f"loom-owner {meta.run}")
            await self._wait_owner(tasks, owner)

    async def _guard(self, watch: Coroutine[Any, Any, None]) -> None:
        """What a watch fails with ends the attempt: a run that nobody watches might never end."""
        try:
            await watch
        except Exception as error:  # a store's own fault
            self._job.fail(error)

    async def _watch_deadline(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self.stop(Stop.DEADLINE)

    async def _watch_owner(self, owner: OwnerWatch) -> None:
        try:
            await owner.wait_gone()
        except LogNotFound:
            return  # dropped: the inbox hears of it too
        self.stop(Stop.OWNER)

    async def _wait_owner(self, tasks: TaskSet, owner: OwnerWatch) -> None:
        """Begin nothing for an owner that seems to be gone, before it is heard of or the run is stopped."""
        alive = tasks.spawn(owner.wait_alive(), f"loom-alive {self._job.meta.run}")
        either: set[asyncio.Future[Any]] = {alive, self._job.stopped}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)

    async def _attempts(self, producer: Producer[..., Any], arguments: dict[str, Any]) -> Ending:
        failure: ErrorInfo | None = None
        pauses = Backoff(*(producer.retry.backoff if producer.retry else limits.RETRY_BACKOFF))
        number = failures = 0
        while True:
            fence = await self._fence(str(number), failures)
            if fence.ended:
                return Ending.ENDED
            self._job.inbox.rewind()
            attempt = Attempt(self._job, producer, fence, failure)
            ending = await attempt.run(arguments)
            if ending is not None:
                return ending
            failure, failures, number = attempt.failure, attempt.failures, number + 1
            await asyncio.wait({self._job.stopped}, timeout=pauses.draw())

    async def _fence(self, part: str, failures: int = 0) -> Fence:
        run, token = self._job.meta.run, f"{self._job.claim.worker}:{self._job.claim.number}:{part}"
        return await self._job.backoff.attempt(lambda: self._job.store.fence(run, token, failures=failures))


def _misplaced(entry: Meta, log: Meta) -> bool:
    """Whether the run stands in another line than its log says."""
    return (entry.actor, entry.key, entry.queue) != (log.actor, log.key, log.queue)

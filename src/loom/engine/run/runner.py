"""The runner: drives one claimed run to its end, attempt by attempt. Nothing else ever drives a producer."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Coroutine
from typing import Any

from loom.backoff import Backoff
from loom.engine.declare.producer import Producer
from loom.engine.declare.registry import Registry
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
from loom.model.text import escaped
from loom.tasks import TaskSet, cancel_and_wait, spawn, together
from loom.wire.failure import info_of

from .attempt import Attempt, Clients, Ending, Job, Resources, Stop
from .ending import end_run
from .owner import OwnerWatch
from .slots import Slot

__all__ = ["Runner"]

_log = logging.getLogger("loom.worker")


class _Refusal(Exception):
    """No attempt is made at a run: it ends with `info`, by the right to write it that was drawn, if it was."""

    def __init__(self, info: ErrorInfo, fence: Fence | None = None) -> None:
        super().__init__(info.message)
        self.info = info
        self.fence = fence


class Runner:
    """One claim's run. `run` returns when the claim is settled; cancelling `run` stops the producer and writes nothing
    (the lease is lost). `stop` asks for an orderly end."""

    def __init__(
        self,
        store: Store,
        registry: Registry,
        claim: Claim,
        resources: Resources,
        slot: Slot,
        clients: Clients | None = None,
    ) -> None:
        self._registry = registry
        self._job = Job(store, claim, resources, slot, clients)
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
        """True if more workers were lost with the run than it may survive."""
        return self._job.claim.crashes > self._max_crashes

    @property
    def _max_crashes(self) -> int:
        return limits.CRASHES if self._producer is None else self._producer.max_crashes

    async def run(self) -> Ending:
        """Drive the run until the claim is settled. Whatever else it raises counts as a lost worker."""
        try:
            return await self._drive_or_refuse()
        except LogNotFound:
            return Ending.ENDED  # dropped under us: there is nothing left to do
        except LogEnded:
            return Ending.ENDED
        except (Fenced, Conflict) as error:
            _log.warning("run %s: stopped writing: %s", self._job.meta.run, escaped(str(error)))
            return Ending.GIVEN_UP

    async def _drive_or_refuse(self) -> Ending:
        """A run that no attempt can bring further is ended, no producer being touched."""
        fence: Fence | None = None
        try:
            return await self._drive()
        except _Refusal as refusal:
            info, fence = refusal.info, refusal.fence
        except Damaged as damage:
            _log.error("run %s: it cannot be read: %s", self._job.meta.run, escaped(str(damage)))
            info = damage.info
        await end_run(self._job.store.logs, self._job.meta.run, fence or await self._fence("end"), info)
        return Ending.ENDED

    async def _drive(self) -> Ending:
        if self.exhausted:  # first of all: it may be what it holds that workers are lost by
            return await self._end_exhausted()
        job, created = self._job, asyncio.Event()
        job.following = spawn(job.inbox.follow(created), f"loom-inbox {job.meta.run}")
        try:
            head, fence = await self._take()
            created.set()
            if head.ended or fence.ended:
                return Ending.ENDED
            if _misplaced(job.claim.meta, head.meta):
                return await self._put_right(head.meta)
            return await self._settle(head, fence)
        finally:
            await cancel_and_wait(job.following)

    async def _end_exhausted(self) -> Ending:
        head: Head | None = None
        try:
            head = await self._created()
        except Exception:  # it cannot be read; its log may still be ended
            _log.exception("run %s: it is ended unread", self._job.meta.run)
        if head is not None and head.ended:
            return Ending.ENDED
        crashes = self._job.claim.crashes
        reason = f"the run was lost: its worker was lost {crashes} times (max_crashes={self._max_crashes})"
        raise _Refusal(ErrorInfo("run_lost", reason, details={DEAD: True}))

    async def _take(self) -> tuple[Head, Fence]:
        """The run's head, and the right to write its first attempt. Both are asked for at once: the log is nearly
        always there, and as the queue has one entry of a run, whoever holds it takes the right from nobody."""
        at_once, name = self._job.store.waits, f"loom-take {self._job.meta.run}"
        head, fence = await together(self._created(), self._fenced(), name, at_once=at_once)
        return head, fence or await self._fence("0")

    async def _created(self) -> Head:
        return await self._job.backoff.attempt(lambda: self._job.store.runs.create(self._job.meta))

    async def _fenced(self) -> Fence | None:
        """None: its log is not there yet."""
        try:
            return await self._fence("0")
        except LogNotFound:
            return None

    async def _put_right(self, meta: Meta) -> Ending:
        """Two starts of one id, unlike in what the queue goes by, at once: the entry is the loser's, the log the
        winner's, and the log is the truth. Should we fail between the two, a sweep puts the run."""
        store = self._job.store
        await self._job.backoff.attempt(lambda: store.queue.ack(self._job.claim))
        await self._job.backoff.attempt(lambda: store.queue.put(meta))
        return Ending.GIVEN_UP

    async def _settle(self, head: Head, fence: Fence) -> Ending:
        # The log's meta is the truth: an entry put twice under one id may carry another's request.
        self._job.meta = head.meta
        try:
            producer = self._producer = self._registry.get(self._job.meta.actor)
            arguments = producer.inputs.decode(bytes(self._job.meta.input))
        except LoomError as error:
            raise _Refusal(error.info, fence) from None
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # user code: a model's validators
            raise _Refusal(info_of(error), fence) from error
        await self._hear()
        async with TaskSet() as tasks:
            await self._watch(tasks, head)
            return await self._attempts(producer, arguments, fence)

    async def _hear(self) -> None:
        """Wait until what the run was told before is known: an earlier cancel holds."""
        following, begun = self._job.following, self._job.inbox.begun
        assert following is not None
        if not begun.done():
            await asyncio.wait({begun, following}, return_when=asyncio.FIRST_COMPLETED)
        if following.done():
            following.result()

    async def _watch(self, tasks: TaskSet, head: Head) -> None:
        """Arm what may stop the run from outside; waits until it is known that its owner wants it."""
        meta = self._job.meta
        if meta.timeout is not None:
            # Wall-clock time bridges workers; a jump of the clock can shorten the wait, never stretch it.
            used = max(0.0, time.time() - head.started) if head.started is not None else 0.0
            tasks.spawn(self._watch_deadline(max(0.0, meta.timeout - used)), f"loom-deadline {meta.run}")
        if meta.owner_lease is not None:
            owner = OwnerWatch(self._job.store.runs, head, meta.owner_lease)
            tasks.spawn(self._guard(self._watch_owner(owner)), f"loom-owner {meta.run}")
            known: set[asyncio.Future[Any]] = {owner.alive, self._job.stopped}
            await asyncio.wait(known, return_when=asyncio.FIRST_COMPLETED)

    async def _guard(self, watch: Coroutine[Any, Any, None]) -> None:
        """Ends the attempt with the error of a watch that fails: a run without its watches might never end."""
        try:
            await watch
        except Exception as error:  # the run was dropped, or a store's own fault
            self._job.fail(error)

    async def _watch_deadline(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self.stop(Stop.DEADLINE)

    async def _watch_owner(self, owner: OwnerWatch) -> None:
        await owner.wait_gone()
        self.stop(Stop.OWNER)

    async def _attempts(self, producer: Producer[..., Any], arguments: dict[str, Any], fence: Fence) -> Ending:
        failure: ErrorInfo | None = None
        pauses = Backoff(*(producer.retry.backoff if producer.retry else limits.RETRY_BACKOFF))
        for number in itertools.count(1):
            attempt = Attempt(self._job, producer, fence, failure)
            ending = await attempt.run(arguments)
            if ending is not None:
                return ending
            failure = attempt.failure
            await asyncio.wait({self._job.stopped}, timeout=pauses.draw())
            fence = await self._fence(str(number), attempt.failures)
            if fence.ended:
                break
            self._job.inbox.rewind()
        return Ending.ENDED

    async def _fence(self, part: str, failures: int = 0) -> Fence:
        run, token = self._job.meta.run, f"{self._job.claim.worker}:{self._job.claim.number}:{part}"
        return await self._job.backoff.attempt(lambda: self._job.store.logs.fence(run, token, failures=failures))


def _misplaced(entry: Meta, log: Meta) -> bool:
    """Whether the run stands in another line than its log says."""
    return (entry.actor, entry.key, entry.queue) != (log.actor, log.key, log.queue)

"""The runner: drives one claimed run to its end, attempt by attempt. Nothing else ever drives a producer."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any

import msgspec

from loom.model import limits
from loom.model.chunk import Chunk
from loom.model.cursor import attempt_of
from loom.model.errors import (
    Conflict,
    ErrorInfo,
    Fenced,
    LimitExceeded,
    LogEnded,
    LogNotFound,
    LoomError,
    RunFailed,
    StartOver,
)
from loom.model.parts import Usage
from loom.model.ports import AI, Fence, Store
from loom.model.run import Claim, Head
from loom.wire.json import convert

from .backoff import REPEATABLE, Backoff
from .context import Context, Previous
from .drive import Voice, drive
from .ending import end_run, error_chunk
from .failure import info_of, is_of
from .history import History, Plan, plan
from .inbox import Inbox
from .readers import Readers
from .registry import Producer, Registry
from .tasks import TaskSet, cancel_and_wait, spawn, wait_out
from .usage import Meter, metered
from .writer import Writer

__all__ = ["Ending", "Resources", "Runner", "Stop"]

_log = logging.getLogger("loom.worker")


class Stop(Enum):
    """Why a run is stopped from outside."""

    CANCEL = "it was cancelled"
    OWNER = "its owner left"
    DEADLINE = "its time-out passed"
    IDLE = "it said nothing for its idle time-out"
    HAND_OVER = "its worker is draining"
    LAST_CALL = "its worker is draining and the run did not end in time"


class Ending(Enum):
    """What became of the claim."""

    ENDED = "ended"  # the log has ended: acknowledge
    RELEASED = "released"  # another worker goes on
    GIVEN_UP = "given up"  # somebody else holds the run: write nothing, acknowledge nothing


class Resources:
    """What an app lends to its runs, by actor: the lifespan's value and the model behind `ctx.ai`."""

    def __init__(
        self, values: Mapping[str, Any] | None = None, ais: Mapping[str, Callable[[], AI] | None] | None = None
    ) -> None:
        self.values = values or {}
        self.ais = ais or {}


class Runner:
    """One claim's run. `run` returns when the claim is settled; cancelling `run` stops the producer and writes nothing
    (the lease is lost). `stop` asks for an orderly end."""

    def __init__(
        self, store: Store, registry: Registry, claim: Claim, resources: Resources, threads: asyncio.Semaphore
    ) -> None:
        self._store = store
        self._registry = registry
        self._claim = claim
        self._meta = claim.meta
        self._resources = resources
        self._threads = threads
        self._stop: asyncio.Future[Stop] = asyncio.get_running_loop().create_future()
        self._inbox = Inbox(store, claim.run, lambda: self.stop(Stop.CANCEL))
        self._backoff = Backoff.of_store()
        self._meter = Meter()
        self._producer = registry.find(claim.meta.actor)
        self.following: asyncio.Task[None] | None = None
        """Reads the inbox; it ends only by an error (the run was dropped, or cannot be told anything any more)."""
        self.abandoned: asyncio.Task[Any] | None = None
        """A producer that did not stop in time, still running."""
        self.lost = False
        """Whether the run was ended because this worker drains."""

    @property
    def continues(self) -> bool:
        """Whether handing the run over loses nothing."""
        return self._producer is not None and self._producer.continues

    @property
    def retried(self) -> bool:
        """Whether the run may be tried again once it has said something."""
        return self._producer is not None and self._producer.retry is not None

    def stop(self, why: Stop) -> None:
        """Ask for an orderly end; the first reason counts."""
        if not self._stop.done():
            self._stop.set_result(why)

    async def run(self) -> Ending:
        """Drive the run until the claim is settled."""
        try:
            head = await self._backoff.attempt(lambda: self._store.create(self._meta))
            if head.ended:
                return Ending.ENDED
            return await self._settle(head)
        except LogNotFound:
            return Ending.ENDED  # dropped under us: there is nothing left to do
        except LogEnded:
            return Ending.ENDED
        except (Fenced, Conflict) as error:
            _log.warning("run %s: stopped writing: %s", self._meta.run, error)
            return Ending.GIVEN_UP

    async def _settle(self, head: Head) -> Ending:
        # The log's meta is the truth: an entry put twice under one id may carry another's request.
        self._meta = head.meta
        try:
            producer = self._producer = self._registry.get(self._meta.actor)
            arguments = producer.decode(bytes(self._meta.input))
        except LoomError as error:
            return await self._refuse(error.info)
        await self._backoff.attempt(self._inbox.read)
        self.following = spawn(self._inbox.follow(), f"loom-inbox {self._meta.run}")
        try:
            async with TaskSet() as tasks:
                self._watch(tasks, head)
                return await self._attempts(producer, arguments)
        finally:
            await cancel_and_wait(self.following)

    async def _refuse(self, error: ErrorInfo) -> Ending:
        """End the run before the producer is touched."""
        await end_run(self._store, self._meta.run, await self._fence(0), error)
        return Ending.ENDED

    def _watch(self, tasks: TaskSet, head: Head) -> None:
        """Arm what may stop the run from outside."""
        meta = self._meta
        if meta.owner_lease is not None:
            tasks.spawn(self._watch_owner(meta.owner_lease), f"loom-owner {meta.run}")
        if meta.timeout is not None:
            # Wall-clock time bridges workers; a jump of the clock can shorten the wait, never stretch it.
            used = max(0.0, time.time() - head.started) if head.started is not None else 0.0
            tasks.spawn(self._watch_deadline(max(0.0, meta.timeout - used)), f"loom-deadline {meta.run}")

    async def _watch_deadline(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self.stop(Stop.DEADLINE)

    async def _watch_owner(self, lease: float) -> None:
        """Only silence while the store answers counts: in an outage the owner cannot be heard of."""
        beat, seen = -1, time.monotonic()
        backoff = Backoff.of_store()
        while True:
            try:
                head = await self._store.head(self._meta.run)
            except LogNotFound:
                return  # dropped: the inbox hears of it too
            except REPEATABLE:
                await backoff.pause()
                seen = time.monotonic()
                continue
            now = time.monotonic()
            if head.beat != beat:
                beat, seen = head.beat, now
            elif now - seen >= lease:
                self.stop(Stop.OWNER)
                return
            pause = min(lease / limits.RENEW_FRACTION, max(0.0, seen + lease - now))
            await asyncio.sleep(pause)
            if time.monotonic() - now > pause + lease / limits.RENEW_FRACTION:
                seen = time.monotonic()  # it was this process that stood still: the owner may only seem silent

    async def _attempts(self, producer: Producer[..., Any], arguments: dict[str, Any]) -> Ending:
        failure: ErrorInfo | None = None
        pauses = Backoff(*(producer.retry.backoff if producer.retry else limits.RETRY_BACKOFF))
        number = 0
        while True:
            fence = await self._fence(number)
            if fence.ended:
                return Ending.ENDED
            self._inbox.rewind()
            attempt = _Attempt(self, producer, fence, failure)
            ending = await attempt.run(arguments)
            if ending is not None:
                return ending
            failure, number = attempt.failure, number + 1
            await asyncio.wait({self._stop}, timeout=pauses.draw())

    async def _fence(self, number: int) -> Fence:
        token = f"{self._claim.worker}:{self._claim.number}:{number}"
        return await self._backoff.attempt(lambda: self._store.fence(self._meta.run, token))


class _Attempt:
    """One attempt: start chunk, producer, and the end or the reason for another attempt (`failure`)."""

    def __init__(self, runner: Runner, producer: Producer[..., Any], fence: Fence, failure: ErrorInfo | None) -> None:
        self._runner = runner
        self._producer = producer
        self._fence = fence
        self._cause = failure
        self._kept = 0
        self._history = History(keep=producer.continues)
        self.failure: ErrorInfo | None = None

    async def run(self, arguments: dict[str, Any]) -> Ending | None:
        """The claim's ending, or None for another attempt."""
        if self._fence.tail and not self._crashed_too_often:
            await self._read_history()
        writer = Writer(self._runner._store, self._runner._meta.run, self._fence)
        try:
            return await self._run(writer, arguments)
        finally:
            await writer.aclose()

    @property
    def _crashed_too_often(self) -> bool:
        """Then the run ends whatever its log says: it may be the log that workers crash on."""
        return self._runner._claim.crashes > self._producer.max_crashes

    async def _read_history(self) -> None:
        store, run = self._runner._store, self._runner._meta.run
        after = (await self._runner._backoff.attempt(lambda: store.head(run))).earliest
        while True:
            page = await self._runner._backoff.attempt(lambda after=after: store.read(run, after))  # type: ignore[misc]
            self._history.add(page)
            after = page.cursor
            if page.caught_up:
                break
        if self._cause is None and self._history.usage is not None:  # another worker's attempts
            self._runner._meter.add(self._history.usage)

    async def _run(self, writer: Writer, arguments: dict[str, Any]) -> Ending | None:
        stop = self._runner._stop
        if stop.done():
            return await self._stopped(writer, stop.result(), spoke=False)
        verdict = self._plan()
        if verdict.act == "lost":
            return await self._end(writer, error_chunk(ErrorInfo("run_lost", f"the run was lost: {verdict.reason}")))
        writer.put(self._start(verdict))
        self._kept = verdict.kept_through
        readers = self._readers()
        voice = Voice(writer, readers)
        context = self._context(voice, verdict)
        if self._producer.context is not None:
            arguments = {**arguments, self._producer.context: context}
        try:
            run = drive(self._producer, arguments, voice, self._runner._threads)
            with metered(self._runner._meter):
                task = spawn(run, f"loom-run {self._runner._meta.run}")
            return await self._supervise(task, writer, voice, context)
        finally:
            if readers is not None:
                readers.close()

    def _plan(self) -> Plan:
        return plan(
            tail=self._fence.tail,
            said=self._history.said,
            failed=self._cause is not None,
            crashes=self._runner._claim.crashes,
            max_crashes=self._producer.max_crashes,
            retry=self._producer.retry,
            starts_over=_starts_over(self._cause),
        )

    def _start(self, verdict: Plan) -> Chunk[Any]:
        data = {
            "attempt": attempt_of(self._fence.epoch),
            "actor": self._producer.name,
            "kept_through": verdict.kept_through,
        }
        return Chunk("start", data, None, self._cause, None, time.time(), usage=self._used)

    @property
    def _used(self) -> Usage | None:
        """What the run's models have used by now."""
        usage = self._runner._meter.usage
        return usage if usage.calls else None

    def _readers(self) -> Readers | None:
        meta = self._runner._meta
        return None if meta.ahead is None else Readers(self._runner._store, meta.run, meta.ahead)

    def _context(self, voice: Voice, verdict: Plan) -> Context:
        meta = self._runner._meta
        resources = self._runner._resources
        standing = [batch for batch in self._history.standing if batch.first <= verdict.kept_through]
        return Context(
            run_id=meta.run,
            actor=self._producer.name,
            attempt=attempt_of(self._fence.epoch),
            key=meta.key,
            previous=Previous(standing),
            resources=resources.values.get(self._producer.name),
            ai=resources.ais.get(self._producer.name),
            emit=voice.emit,
            receive=self._runner._inbox.receive,
            convert=convert,
            emit_sync=voice.emit_sync if self._producer.threaded else None,
            loop=asyncio.get_running_loop(),
        )

    async def _supervise(
        self, task: asyncio.Task[Any], writer: Writer, voice: Voice, context: Context
    ) -> Ending | None:
        stop, following = self._runner._stop, self._runner.following
        assert following is not None
        halted = True
        async with TaskSet() as tasks:
            self._arm_idle(tasks, voice)
            try:
                await asyncio.wait({task, stop, writer.on_broken, following}, return_when=asyncio.FIRST_COMPLETED)
                halted = not task.done()
            finally:
                if halted:
                    context._cancel()
                    await self._halt(task, voice)
        if writer.on_broken.done():
            if task.done() and not task.cancelled():
                task.exception()  # seen: it can no longer be told
            raise writer.on_broken.result()
        if not halted:
            return await self._finished(task, writer)
        if stop.done():
            # Also when the producer returned after all: told to stop, what it returns is not what it would have been.
            return await self._stopped(writer, stop.result(), spoke=True, abandoned=not task.done())
        return following.result()

    async def _halt(self, task: asyncio.Task[Any], voice: Voice) -> None:
        """Cancel the producer and wait until it is really gone, or is abandoned."""
        voice.close()
        task.cancel()
        try:
            await wait_out(task, timeout=limits.ABANDON_AFTER)
        finally:
            self._halted(task)

    def _halted(self, task: asyncio.Task[Any]) -> None:
        run = self._runner._meta.run
        if not task.done():
            self._runner.abandoned = task
            _log.warning("run %s: its producer did not stop within %s s", run, limits.ABANDON_AFTER)
        elif not task.cancelled() and (error := task.exception()) is not None:
            _log.warning("run %s: its producer failed while it was stopped", run, exc_info=error)

    def _arm_idle(self, tasks: TaskSet, voice: Voice) -> None:
        seconds = self._runner._meta.idle_timeout
        if seconds is not None:
            tasks.spawn(self._watch_idle(voice, seconds), f"loom-idle {self._runner._meta.run}")

    async def _watch_idle(self, voice: Voice, seconds: float) -> None:
        left = seconds
        while left > 0:
            await asyncio.sleep(left)
            left = voice.spoke + seconds - time.monotonic()
        self._runner.stop(Stop.IDLE)

    async def _finished(self, task: asyncio.Task[Any], writer: Writer) -> Ending | None:
        """The producer ended by itself."""
        if task.cancelled():
            return await self._failed(writer, RunFailed("the producer's task was cancelled from inside"))
        error = task.exception()
        if error is not None:
            return await self._failed(writer, error)
        try:
            return await self._end(writer, Chunk("complete", task.result(), None, None, None, time.time()))
        except (LimitExceeded, RunFailed) as reason:
            return await self._failed(writer, RunFailed(f"its result: {reason}", code="invalid_output"))

    async def _failed(self, writer: Writer, error: BaseException) -> Ending | None:
        info = info_of(error)
        if self._may_retry(error):
            await writer.flush()
            self.failure = info
            _log.info("run %s: %s; trying again", self._runner._meta.run, info.message)
            return None
        _log.warning("run %s failed: %s", self._runner._meta.run, info.message, exc_info=error)
        return await self._end(writer, error_chunk(info))

    def _may_retry(self, error: BaseException) -> bool:
        retry = self._producer.retry
        if isinstance(error, StartOver) and self._kept:
            return True
        if retry is None or not is_of(error, retry.on):
            return False
        failures = self._history.failures + (self._cause is not None and not _starts_over(self._cause))
        return failures + 1 < retry.attempts

    async def _stopped(self, writer: Writer, why: Stop, *, spoke: bool, abandoned: bool = False) -> Ending | None:
        details = {"abandoned": True} if abandoned else {}
        match why:
            case Stop.HAND_OVER:
                await writer.flush()
                return Ending.RELEASED
            case Stop.LAST_CALL:
                said = self._history.said or writer.seq > self._fence.tail + 1
                if not spoke or not said or self._runner.retried:
                    await writer.flush()
                    return Ending.RELEASED
                self._runner.lost = True
                info = ErrorInfo("run_lost", f"the run was lost: {why.value}", details=details)
            case Stop.CANCEL:
                info = ErrorInfo("cancelled", "the run was cancelled", details=details)
            case Stop.OWNER:
                info = ErrorInfo("cancelled", f"the run was cancelled: {why.value}", details=details)
            case Stop.DEADLINE:
                info = ErrorInfo("deadline_exceeded", f"{why.value}: {self._runner._meta.timeout} s", details=details)
            case Stop.IDLE:
                info = ErrorInfo("idle_timeout", f"{why.value}: {self._runner._meta.idle_timeout} s", details=details)
        return await self._end(writer, error_chunk(info))

    async def _end(self, writer: Writer, chunk: Chunk[Any]) -> Ending:
        await writer.end(msgspec.structs.replace(chunk, usage=self._used))
        return Ending.ENDED


def _starts_over(cause: ErrorInfo | None) -> bool:
    return cause is not None and cause.code == StartOver.default_code

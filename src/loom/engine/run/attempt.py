"""One attempt at a run: from its start chunk to the run's end, or to the reason for another attempt."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any, Protocol

from msgspec.structs import replace

from loom.backoff import Backoff
from loom.engine.declare.context import Context, Previous, RunClient
from loom.engine.declare.producer import Producer
from loom.engine.declare.registry import Registry
from loom.engine.declare.standing import Room
from loom.model import limits
from loom.model.ai import AI
from loom.model.chunk import Chunk, Message
from loom.model.cursor import attempt_of
from loom.model.errors import (
    DEAD,
    CursorExpired,
    ErrorInfo,
    RunFailed,
    StartOver,
)
from loom.model.parts import Usage
from loom.model.ports import Fence, Store
from loom.model.retraction import Retraction
from loom.model.run import Claim, Meta
from loom.model.text import escaped
from loom.tasks import TaskSet, abandon, spawn, wait_out
from loom.wire.codec import convert
from loom.wire.failure import info_of, is_of

from .drive import Voice, check_output, drive
from .ending import error_chunk
from .history import History, Plan, plan
from .inbox import Inbox
from .readers import Readers
from .slots import Slot
from .usage import Meter, metered
from .writer import InvalidOutput, Writer

__all__ = ["Attempt", "Clients", "Ending", "Job", "Resources", "Stop"]

STOP_AT_ONCE = 0.1
"""A sync producer whose time is over may stop by itself within this time, at its next yield. Nothing can interrupt it:
what goes on is told as abandoned, and its slot stays counted."""

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


class OpenClient(RunClient, Protocol):
    """The client of an attempt. Closing it leaves what it started as it is."""

    async def aclose(self) -> None: ...


class Clients(Protocol):
    """The clients of the runs of one worker, on its store."""

    def of(self, meta: Meta, slot: Slot) -> OpenClient:
        """A client of that run, which gives back `slot` where it waits for a run."""
        ...

    async def aclose(self) -> None: ...


class Resources:
    """What an app lends to its runs, by actor: the lifespan's value and the model behind `ctx.ai`."""

    def __init__(
        self, values: Mapping[str, Any] | None = None, ais: Mapping[str, Callable[[], AI] | None] | None = None
    ) -> None:
        self.room = Room()
        """What the attempts hold of what was said before them."""
        self.values = values or {}
        self.ais = ais or {}
        self.clients: Callable[[Store, Registry, Callable[[], Sequence[str]] | None], Clients] | None = None
        """Makes the clients of a worker's runs. It is given the queues that are served, where there are no others."""
        self.on_failure: Callable[[str, BaseException], object] | None = None
        """Called with the run and the exception that ends it, in this process, before its log ends. Must not raise."""


class Job:
    """A claimed run, as its attempts and whoever stops it share it."""

    def __init__(
        self, store: Store, claim: Claim, resources: Resources, slot: Slot, clients: Clients | None = None
    ) -> None:
        self.store = store
        self.claim = claim
        self.meta = claim.meta
        self.resources = resources
        self.slot = slot
        self.backoff = Backoff.of_store()
        self.meter = Meter()
        self.stopped: asyncio.Future[Stop] = asyncio.get_running_loop().create_future()
        self.inbox = Inbox(store.logs, claim.run, lambda: self.stop(Stop.CANCEL))
        self.following: asyncio.Task[None] | None = None
        """Reads the inbox; it ends only by an error (the run was dropped, or cannot be told anything any more)."""
        self.abandoned: asyncio.Task[Any] | None = None
        """A producer that did not stop in time, still running."""
        self.lost = False
        """Whether the run was ended because this worker drains."""
        self.clients = clients

    async def receive(self, type: str | None, timeout: float | None) -> Message[Any]:
        """See `Inbox.receive`; the run's slot is given back while it waits."""
        return await self.inbox.receive(type, timeout, self.slot.wait)

    def stop(self, why: Stop) -> None:
        """Ask for an orderly end; the first reason counts."""
        if not self.stopped.done():
            self.stopped.set_result(why)

    def fail(self, error: Exception) -> None:
        """End the attempt with `error`, as if it had raised that itself."""
        if not self.stopped.done():
            self.stopped.set_exception(error)
            self.stopped.exception()  # seen: whoever asks why it stopped gets it


class Attempt:
    """One attempt: start chunk, producer, and the end or the reason for another attempt (`failure`)."""

    def __init__(self, job: Job, producer: Producer[..., Any], fence: Fence, failure: ErrorInfo | None) -> None:
        self._job = job
        self._producer = producer
        self._fence = fence
        self._cause = failure
        self._kept = 0
        self._history = self._new_history()
        self.failure: ErrorInfo | None = None

    async def run(self, arguments: dict[str, Any]) -> Ending | None:
        """The claim's ending, or None for another attempt."""
        try:
            if self._fence.tail:
                await self._read_history()
            return await self._write(arguments)
        finally:
            self._history.standing.leave()

    async def _write(self, arguments: dict[str, Any]) -> Ending | None:
        writer = Writer(self._job.store.logs, self._job.meta.run, self._fence, keep=self._producer.keep)
        try:
            return await self._run(writer, arguments)
        finally:
            await writer.aclose()

    def _new_history(self) -> History:
        """Keeps earlier output only for a producer that looks back."""
        producer = self._producer
        return History(keep=producer.continues and producer.driver.looks_back, room=self._job.resources.room)

    async def _read_history(self) -> None:
        while not await self._read_kept():
            self._history.standing.leave()
            self._history = self._new_history()
        if self._cause is None and self._history.usage is not None:  # another worker's attempts
            self._job.meter.add(self._history.usage)

    async def _read_kept(self) -> bool:
        """Read from the first chunk that is kept; False if it was trimmed meanwhile, by who wrote before us."""
        store, run = self._job.store, self._job.meta.run
        head = await self._job.backoff.attempt(lambda: store.runs.get(run, full=False))
        self._history.said = head.first > 1
        after = head.earliest
        while True:
            try:
                page = await self._job.backoff.attempt(lambda after=after: store.logs.read(run, after))  # type: ignore[misc]
            except CursorExpired:
                return False
            self._history.add(page)
            after = page.cursor
            if page.caught_up:
                return True

    async def _run(self, writer: Writer, arguments: dict[str, Any]) -> Ending | None:
        stop = self._job.stopped
        if stop.done():
            return await self._stopped(writer, stop.result(), spoke=False)
        verdict = self._plan()
        if verdict.act == "lost":
            return await self._end(writer, error_chunk(ErrorInfo("run_lost", f"the run was lost: {verdict.reason}")))
        writer.put(self._start(verdict))
        self._kept = verdict.kept_through
        readers = self._readers()
        voice = Voice(writer, readers, self._producer.yields)
        clients, slot = self._job.clients, self._job.slot
        client = None if clients is None else clients.of(self._job.meta, slot)
        context = self._context(voice, verdict, client)
        try:
            run = drive(self._producer, arguments, context, voice, slot.thread)
            with metered(self._job.meter):
                task = spawn(run, f"loom-run {self._job.meta.run}")
            slot.begin(None if self._producer.driver.threaded else task)
            return await self._supervise(task, writer, voice, context)
        finally:
            slot.settle()
            if client is not None:
                await client.aclose()
            if readers is not None:
                readers.close()

    def _plan(self) -> Plan:
        return plan(
            tail=self._fence.tail,
            said=self._history.said,
            failed=self._cause is not None,
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
    def failures(self) -> int:
        """The number of attempts that have failed, this one included if it has."""
        return self._fence.failures + (self.failure is not None and not _starts_over(self.failure))

    @property
    def _used(self) -> Usage | None:
        """What the run's models have used by now."""
        usage = self._job.meter.usage
        return usage if usage.calls else None

    def _readers(self) -> Readers | None:
        meta = self._job.meta
        if meta.ahead is None:
            return None
        return Readers(self._job.store.logs, meta.run, meta.ahead, self._job.slot.wait_for_run)

    def _context(self, voice: Voice, verdict: Plan, client: RunClient | None) -> Context:
        meta = self._job.meta
        resources = self._job.resources
        self._history.standing.retract(Retraction(verdict.kept_through))
        return Context(
            run_id=meta.run,
            actor=self._producer.name,
            attempt=attempt_of(self._fence.epoch),
            key=meta.key,
            previous=Previous(self._history.standing),
            resources=resources.values.get(self._producer.name),
            ai=resources.ais.get(self._producer.name),
            emit=voice.emit,
            receive=self._job.receive,
            convert=convert,
            emit_sync=voice.emit_sync if self._producer.driver.threaded else None,
            loop=asyncio.get_running_loop(),
            waits=self._job.slot,
            client=client,
        )

    async def _supervise(
        self, task: asyncio.Task[Any], writer: Writer, voice: Voice, context: Context
    ) -> Ending | None:
        stop, following = self._job.stopped, self._job.following
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
        self._job.slot.stop()
        task.cancel()
        patience = self._patience
        try:
            await wait_out(task, timeout=patience)
        finally:
            self._halted(task, patience)

    @property
    def _patience(self) -> float:
        """Seconds that the producer may take to stop. A time-out ends the run when it passes: a coroutine then only
        cleans up, but a thread, which nothing can interrupt, just goes on."""
        stopped = self._job.stopped
        timed_out = stopped.done() and stopped.exception() is None and stopped.result() in (Stop.DEADLINE, Stop.IDLE)
        return STOP_AT_ONCE if timed_out and self._producer.driver.threaded else limits.ABANDON_AFTER

    def _halted(self, task: asyncio.Task[Any], patience: float) -> None:
        run = self._job.meta.run
        if not task.done():
            self._job.abandoned = task
            abandon(task)
            self._job.slot.thread.release()  # else claimed runs could wait for it for ever
            _log.warning("run %s: its producer did not stop within %s s", run, patience)
        elif not task.cancelled() and (error := task.exception()) is not None:
            _log.warning("run %s: its producer failed while it was stopped", run, exc_info=error)

    def _arm_idle(self, tasks: TaskSet, voice: Voice) -> None:
        seconds = self._job.meta.idle_timeout
        if seconds is not None:
            tasks.spawn(self._watch_idle(voice, seconds), f"loom-idle {self._job.meta.run}")

    async def _watch_idle(self, voice: Voice, seconds: float) -> None:
        left = seconds
        while left > 0:
            await asyncio.sleep(left)
            left = voice.spoke + seconds - time.monotonic()
        self._job.stop(Stop.IDLE)

    async def _finished(self, task: asyncio.Task[Any], writer: Writer) -> Ending | None:
        """The producer ended by itself."""
        if task.cancelled():
            return await self._failed(writer, RunFailed("the producer's task was cancelled from inside"))
        error = task.exception()
        if error is not None:
            return await self._failed(writer, error)
        try:
            if task.result() is not None:  # else it has none
                check_output(self._producer.returns, task.result(), "cannot send it")
            return await self._end(writer, Chunk("complete", task.result(), None, None, None, time.time()))
        except InvalidOutput as reason:
            return await self._failed(writer, type(reason)(f"its result: {reason}", details=reason.details))

    async def _failed(self, writer: Writer, error: BaseException) -> Ending | None:
        info = info_of(error)
        if self._may_retry(error):
            await writer.flush()
            self.failure = info
            _log.info("run %s: %s; trying again", self._job.meta.run, escaped(info.message))
            return None
        _log.warning("run %s failed: %s", self._job.meta.run, escaped(info.message), exc_info=error)
        if (observe := self._job.resources.on_failure) is not None:
            observe(self._job.meta.run, error)
        if self._tried_in_vain(error):
            info = replace(info, details={**info.details, DEAD: True})
        return await self._end(writer, error_chunk(info))

    def _tried_in_vain(self, error: BaseException) -> bool:
        """Whether another attempt would have followed, had there not been enough: then the run is a dead letter."""
        retry = self._producer.retry
        return retry is not None and retry.attempts > 1 and is_of(error, retry.on) and not _is_final(error)

    def _may_retry(self, error: BaseException) -> bool:
        retry = self._producer.retry
        if isinstance(error, StartOver) and self._kept:
            return True
        if _is_final(error) or retry is None or not is_of(error, retry.on):
            return False
        return self._fence.failures + 1 < retry.attempts

    async def _stopped(self, writer: Writer, why: Stop, *, spoke: bool, abandoned: bool = False) -> Ending | None:
        details = {"abandoned": True} if abandoned else {}
        match why:
            case Stop.HAND_OVER:
                await writer.flush()
                return Ending.RELEASED
            case Stop.LAST_CALL:
                said = self._history.said or writer.seq > self._fence.tail + 1
                if not spoke or not said or self._producer.retry is not None:
                    await writer.flush()
                    return Ending.RELEASED
                self._job.lost = True
                info = ErrorInfo("run_lost", f"the run was lost: {why.value}", details=details)
            case Stop.CANCEL:
                info = ErrorInfo("cancelled", "the run was cancelled", details=details)
            case Stop.OWNER:
                info = ErrorInfo("cancelled", f"the run was cancelled: {why.value}", details=details)
            case Stop.DEADLINE:
                info = ErrorInfo("deadline_exceeded", f"{why.value}: {self._job.meta.timeout} s", details=details)
            case Stop.IDLE:
                info = ErrorInfo("idle_timeout", f"{why.value}: {self._job.meta.idle_timeout} s", details=details)
        return await self._end(writer, error_chunk(info))

    async def _end(self, writer: Writer, chunk: Chunk[Any]) -> Ending:
        await writer.end(replace(chunk, usage=self._used))
        return Ending.ENDED


def _is_final(error: BaseException) -> bool:
    """True if the next attempt would fail in the same way: a full log, a value without a JSON form."""
    return isinstance(error, InvalidOutput) or (isinstance(error, RunFailed) and error.code == "log_full")


def _starts_over(cause: ErrorInfo | None) -> bool:
    return cause is not None and cause.code == StartOver.default_code

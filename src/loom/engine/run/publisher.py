"""The publisher: code outside any producer writes a run. A writer as any other: fenced, batching, resumable.

It holds its run's entry in the queue of publishers, so that whoever looks there finds it when it has died.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
import uuid
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self

from loom.affinity import LoopAffinity
from loom.backoff import Backoff
from loom.engine.declare.context import Previous
from loom.engine.declare.standing import Room
from loom.model import limits
from loom.model.chunk import Chunk, Message
from loom.model.cursor import attempt_of
from loom.model.errors import (
    Conflict,
    CursorExpired,
    ErrorInfo,
    Fenced,
    HandleClosed,
    LimitExceeded,
    LocalProtocolError,
    LogEnded,
    LogNotFound,
    LoomError,
    RunCancelled,
    RunFailed,
    Unavailable,
)
from loom.model.keep import Keep
from loom.model.ports import Fence, Store
from loom.model.retraction import Retraction
from loom.model.run import Claim, Head, Meta
from loom.model.text import escaped
from loom.tasks import TaskSet, cancel_and_wait
from loom.wire.failure import bounded, info_of

from .drive import Voice
from .ending import error_chunk
from .history import History
from .inbox import Inbox
from .writer import Writer

__all__ = ["Publisher"]

_log = logging.getLogger("loom.publisher")


class Publisher:
    """``async with client.publisher("job-7") as pub: await pub.publish("hello")``: writes a run outside any producer.

    Entering takes the sole right to write: whoever published this run before is `Fenced`. A run that was left
    unfinished is gone on with (`kept_through`, `previous` tell what stands; with `restart` it is taken back). Raises
    `LogEnded` for one that has ended, `Conflict` for an id that is not a publisher's.

    Leaving the block completes the run; by an exception it fails with that, by a cancellation it is cancelled. When
    this process dies, or does not reach the store for `lease` seconds, the run ends with `run_lost` soon after.
    """

    def __init__(
        self, store: Callable[[], Store], meta: Meta, *, lease: float, keep: Keep | None = None, restart: bool = False
    ) -> None:
        self.id = meta.run
        self._store_of = store
        self._meta = meta
        self._lease = lease
        self._keep = keep
        self._restart = restart
        self._name = f"publisher-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._opened: _Opened | None = None

    def __repr__(self) -> str:
        return f"<Publisher of {self.id}>"

    async def __aenter__(self) -> Self:
        if self._opened is not None:
            raise HandleClosed("a publisher is opened once: make another")
        store = self._store_of()
        claim, fence = await self._take_over(store)
        self._opened = _Opened(store, claim, fence, self._lease, self._keep)
        try:
            await self._opened.begin(self._meta.actor, 0 if self._restart else fence.tail)
        except BaseException:
            await self._opened.aclose()
            raise
        return self

    async def _take_over(self, store: Store) -> tuple[Claim, Fence]:
        """The run's entry and its newest epoch. Of two that open it at once each may get one of them: whose entry is
        gone when it has its epoch takes both anew, and the other one learns of it as of any who takes over."""
        backoff = Backoff.of_store()
        while True:
            claim = await self._hold(store)
            fence = await self._fence(store, claim)
            try:
                await store.queue.renew(claim)
            except Fenced:
                await backoff.pause()
            else:
                return claim, fence

    async def _fence(self, store: Store, claim: Claim) -> Fence:
        try:
            self._check(await store.runs.create(self._meta))
            fence = await store.logs.fence(self.id, f"{self._name}:{claim.number}")
            if fence.ended:
                raise LogEnded(f"run {self.id!r} has ended")
        except (Conflict, LogEnded):
            with contextlib.suppress(LoomError):  # somebody else's by now, or it lapses
                await store.queue.ack(claim)
            raise
        return fence

    async def _hold(self, store: Store) -> Claim:
        """What is there is looked at first: another's run is not touched."""
        with contextlib.suppress(LogNotFound):  # then it is a new run
            self._check(await store.runs.get(self.id))
        return await store.queue.force_claim(self._meta, self._name, lease=self._lease)

    def _check(self, head: Head) -> None:
        if not head.meta.published or not head.meta.same_request(self._meta):
            raise Conflict(
                f"run {self.id!r} is of {head.meta.actor!r}, and not this publisher's", details={"run": self.id}
            )
        if head.ended:
            raise LogEnded(f"run {self.id!r} has ended")

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        opened = self._here
        try:
            await opened.finish(error)
        finally:
            await opened.aclose()

    @property
    def _open(self) -> _Opened:
        if self._opened is None:
            raise HandleClosed("this publisher is not open: use it in `async with`")
        return self._opened

    @property
    def _here(self) -> _Opened:
        """The open run, for calls that wait: in another event loop they raise `UsageError`."""
        opened = self._open
        opened.affinity.check()
        return opened

    @property
    def attempt(self) -> int:
        """The attempt that this publisher is: 1 for the run's first; numbers only grow."""
        return attempt_of(self._open.fence.epoch)

    @property
    def kept_through(self) -> int:
        """Up to which seq what was said before still stands; 0: nothing, this is a new start."""
        return self._open.kept

    @property
    def tail(self) -> int:
        """The seq of the last chunk that the store has acknowledged."""
        return self._open.writer.acknowledged

    @property
    def cancelled(self) -> bool:
        """Whether somebody cancelled the run: leave the block soon, which confirms it. `publish` raises from now on."""
        return self._open.cancelled.done()

    async def wait_cancelled(self) -> None:
        """Wait until somebody cancels the run. Raises what ends the publisher before: `Fenced`, `Unavailable`."""
        await self._here.wait_cancelled()

    async def previous(self) -> Previous:
        """The output of earlier publishers of this run that still stands, in order, as far as it is kept."""
        return await self._here.previous()

    async def publish(self, value: Any) -> None:
        """Say `value`, a `loom.Progress`, or a `loom.Chunk` of any type; waits while the pending batch is full.

        In order, each exactly once; stored soon after this returns (`flush` waits for that). Raises `RunCancelled` once
        the run was cancelled, `Fenced` when another publisher took over or this one was taken for dead, `Unavailable`
        when the store was out of reach for the lease, `RunFailed` for what has no JSON (`invalid_output`) and when the
        log is full (`log_full`), `LimitExceeded` for what is too large, `LocalProtocolError` for reserved types and
        after the end. Nothing was said then.
        """
        await self._here.publish(value)

    async def flush(self) -> None:
        """Wait until all that was published is stored. Raises as `publish`."""
        await self._here.flush()

    async def receive(self, type: str | None = None) -> Message[Any]:
        """The first message that was sent to the run (of `type`) and that this publisher has not taken yet; waits.

        Raises as `publish`."""
        return await self._here.receive(type)

    async def complete(self, result: Any = None) -> None:
        """End the run with its result; it is stored when this returns. Raises as `publish`."""
        await self._here.complete(result)

    async def fail(self, error: BaseException | ErrorInfo | str) -> None:
        """End the run with an error; it is stored when this returns. Raises as `publish`."""
        await self._here.fail(error)

    async def hand_over(self) -> None:
        """Leave the run unfinished for whoever publishes it next; all is stored when this returns. Unless somebody does
        within the lease, it ends with `run_lost`."""
        await self._here.hand_over()


class _Opened:
    """What an open publisher has, from the fence to the end."""

    def __init__(self, store: Store, claim: Claim, fence: Fence, lease: float, keep: Keep | None) -> None:
        self._store = store
        self.affinity = LoopAffinity()
        self.affinity.check()
        self._claim = claim
        self._lease = lease
        self.fence = fence
        self.kept = fence.tail
        self.writer = Writer(store.logs, claim.run, fence, keep=keep)
        self._voice = Voice(self.writer)
        self.cancelled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.inbox = Inbox(store.logs, claim.run, self._cancel)
        self._ended = False  # the end was said
        self._own = False  # by whoever publishes, who then needs not be told of a cancel
        self._over = False  # nothing more is to be written
        self._tasks = TaskSet()
        self._renewing = self._tasks.spawn(self._guard(self._renew), f"loom-renew {claim.run}")
        self._tasks.spawn(self._guard(self.inbox.follow), f"loom-inbox {claim.run}")

    async def begin(self, actor: str, kept: int) -> None:
        self.kept = kept
        data = {"attempt": attempt_of(self.fence.epoch), "actor": actor, "kept_through": kept}
        self.writer.put(Chunk("start", data, None, None, None, time.time()))
        await self.writer.flush()

    async def previous(self) -> Previous:
        while (history := await self._history()) is None:
            continue
        history.standing.retract(Retraction(self.kept))
        return Previous(history.standing)

    async def _history(self) -> History | None:
        """What stood before us, as far as it is kept; None if it was trimmed meanwhile."""
        history = History(keep=True, room=Room())
        after = (await self._store.runs.get(self._claim.run, full=False)).earliest
        while (after.seq if after else 0) < self.kept:
            left = self.kept - (after.seq if after else 0)
            try:
                page = await self._store.logs.read(self._claim.run, after, limit=min(left, limits.PAGE_CHUNKS))
            except CursorExpired:
                return None
            history.add(page)
            after = page.cursor
        return history

    # --- saying ------------------------------------------------------------------------------------------------------

    def _check_cancelled(self) -> None:
        if self.cancelled.done():
            raise RunCancelled("the run was cancelled")

    async def publish(self, value: Any) -> None:
        self._check_cancelled()
        if self._voice.say(value):
            await self._voice.room()

    async def flush(self) -> None:
        await self.writer.flush()
        self._check_cancelled()

    async def wait_cancelled(self) -> None:
        broken = self.writer.on_broken
        first: set[asyncio.Future[Any]] = {self.cancelled, broken}
        await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        if not self.cancelled.done():
            raise broken.result()

    async def receive(self, type: str | None) -> Message[Any]:
        """Nobody waits for what can no longer come."""
        broken = self.writer.on_broken
        receiving = self._tasks.spawn(self.inbox.receive(type), f"loom-receive {self._claim.run}")
        try:
            first: set[asyncio.Future[Any]] = {receiving, self.cancelled, broken}
            await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
            if receiving.done():
                return receiving.result()
            self._check_cancelled()
            raise broken.result()
        finally:
            await cancel_and_wait(receiving)

    async def complete(self, result: Any) -> None:
        self._check_cancelled()
        await self._end(Chunk("complete", self._voice.outcome(result), None, None, None, time.time()), own=True)

    async def fail(self, error: BaseException | ErrorInfo | str) -> None:
        self._check_cancelled()
        if isinstance(error, str):
            error = ErrorInfo("run_failed", error)
        await self._end(error_chunk(bounded(error) if isinstance(error, ErrorInfo) else info_of(error)), own=True)

    async def hand_over(self) -> None:
        if self._ended:
            raise LocalProtocolError("the run has ended: there is nothing to hand over")
        await self.flush()
        self._over = self._own = True
        await cancel_and_wait(self._renewing)
        await self._store.queue.renew(self._claim)  # the lease counts from now
        self.writer.give_up(HandleClosed("this publisher has handed its run over"))

    async def _end(self, chunk: Chunk[Any], *, own: bool = False) -> None:
        self.writer.put(chunk)
        self._ended, self._own = True, own
        await self._settle()

    async def _settle(self) -> None:
        """The end was said: wait until it is stored."""
        await self.writer.flush()
        self._over = True
        await self._let_go()

    async def _let_go(self) -> None:
        """The run has ended: its entry is forgotten here, or by whoever finds it lapsed."""
        await cancel_and_wait(self._renewing)
        try:
            async with asyncio.timeout(self._lease):
                await Backoff.of_store().attempt(lambda: self._store.queue.ack(self._claim))
        except (LoomError, TimeoutError):
            _log.info("run %s: its entry was not settled here", self._claim.run)

    # --- leaving -----------------------------------------------------------------------------------------------------

    async def finish(self, error: BaseException | None) -> None:
        """End the run as the block was left: whatever has not been said of it yet."""
        if not self._over:
            try:
                await self._end_as_left(error)
            except LoomError as refused:
                if error is None:
                    raise
                _log.warning("run %s: how it ended was not stored: %s", self._claim.run, escaped(str(refused)))
        if error is None and not self._own:
            self._check_cancelled()

    async def _end_as_left(self, error: BaseException | None) -> None:
        if self._ended:  # whoever said so was interrupted, or does not wait for it
            await self._settle()
            return
        try:
            await self._end(self._last(error))
        except (RunFailed, LimitExceeded) as refused:  # the `Result` that was published cannot be said
            await self._end(error_chunk(info_of(refused)))
            raise

    def _last(self, error: BaseException | None) -> Chunk[Any]:
        if self.cancelled.done():
            return error_chunk(ErrorInfo("cancelled", "the run was cancelled"))
        if error is None:
            return Chunk("complete", self._voice.outcome(None), None, None, None, time.time())
        if isinstance(error, Exception):
            return error_chunk(info_of(error))
        return error_chunk(ErrorInfo("cancelled", "the run was cancelled: its publisher was stopped"))

    def _cancel(self) -> None:
        if not self.cancelled.done():
            self.cancelled.set_result(None)
            self._tasks.spawn(self._abandon(), f"loom-abandon {self._claim.run}")

    async def _abandon(self) -> None:
        """Who does not leave the block in time is told as abandoned: readers are not kept waiting."""
        await asyncio.sleep(limits.ABANDON_AFTER)
        if self._ended or self._over:
            return
        _log.warning("run %s: its publisher did not stop within %s s", self._claim.run, limits.ABANDON_AFTER)
        try:
            await self._end(error_chunk(ErrorInfo("cancelled", "the run was cancelled", details={"abandoned": True})))
        except LoomError as error:
            _log.warning("run %s: its cancellation was not stored: %s", self._claim.run, escaped(str(error)))

    # --- alive -------------------------------------------------------------------------------------------------------

    async def _guard(self, work: Callable[[], Awaitable[None]]) -> None:
        """What ends our right to write, or our hearing of the run, ends the publisher."""
        try:
            await work()
        except asyncio.CancelledError:
            if not self._over:
                self.writer.give_up(HandleClosed("this publisher was closed"))
            raise
        except LoomError as error:
            self.writer.give_up(error)
        except Exception as error:  # a store's own fault
            _log.exception("run %s: its publisher failed", self._claim.run)
            self.writer.give_up(LoomError(f"{type(error).__name__}: {error}"))

    async def _renew(self) -> None:
        renewed = time.monotonic()
        while True:
            await asyncio.sleep(self._lease / limits.RENEW_FRACTION)
            asked = time.monotonic()
            left = renewed + self._lease - asked
            if left <= 0:  # this process stood still; the store knows whether somebody took over meanwhile
                left = self._lease / limits.RENEW_FRACTION
            try:
                async with asyncio.timeout(left):
                    await Backoff.of_store().attempt(lambda: self._store.queue.renew(self._claim))
            except TimeoutError:
                raise Unavailable(f"the store was out of reach for the lease of {self._lease} s") from None
            except Fenced:
                raise Fenced("another publisher took over, or this one was taken for dead") from None
            renewed = asked

    async def aclose(self) -> None:
        try:
            await self._tasks.aclose()
        finally:
            await self.writer.aclose()

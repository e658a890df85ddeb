"""The handle of a run: iterate it, send to it, await it, cancel it. Where its pages come from it does not know."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import aclosing
from datetime import timedelta
from typing import Any, Generic, TypeVar, cast

from loom.affinity import LoopBound
from loom.model import limits
from loom.model.chunk import Chunk, Message
from loom.model.cursor import Cursor
from loom.model.errors import (
    ErrorInfo,
    InvalidInput,
    LoomError,
    RemoteProtocolError,
    RunError,
    RunFailed,
    RunRestarted,
    Unavailable,
    revive,
)
from loom.model.grammar import RESERVED, State, advance
from loom.model.numbers import seconds
from loom.model.parts import Usage
from loom.model.ports import Transport
from loom.model.retraction import MARKERS, Fold
from loom.model.run import Head
from loom.tasks import cancel_and_wait, spawn, wait_out
from loom.wire.codec import ANY, Codec
from loom.wire.json import decode, decode_batch

__all__ = ["OwnedRun", "Run"]

T = TypeVar("T")
R = TypeVar("R")
V = TypeVar("V")

_OPEN = State.OPEN


class Run(Generic[T, R]):
    """A handle on one run, by id. Making one does no I/O; any number may exist, in any process.

    `T` is the type of its data, `R` of its result, by the producer's type hints; of a run by name both are Any.
    """

    def __init__(self, transport: Transport, id: str, *, yields: Codec = ANY, returns: Codec = ANY) -> None:
        self.id = id
        self._transport = transport
        self._yields = yields
        self._returns = returns
        self._over = False  # whether this handle has seen the end

    def __repr__(self) -> str:
        return f"<Run {self.id}>"

    @property
    def transport(self) -> Transport:
        """How the run is reached: for who passes its pages on as they are."""
        return self._transport

    def __aiter__(self) -> AsyncGenerator[Chunk[T], None]:
        return self.chunks()

    def __await__(self) -> Generator[Any, None, R]:
        """``await run`` is ``await run.result()``."""
        return self.result().__await__()

    def chunks(self, after: Cursor | str | None = None, *, raise_errors: bool = True) -> AsyncGenerator[Chunk[T], None]:
        """Every chunk behind `after` (default: from the first) to the end, as it comes, nothing lost, nothing twice,
        over reconnects and restarts. Resume with the last chunk's `cursor`.

        Raises the `RunError` when the run ended with one (its `chunk` is the error chunk; `raise_errors=False` gives
        the chunk instead), `CursorExpired` when the history at `after` is gone, `LogNotFound`, and
        `RemoteProtocolError` when the chunks stop although none has ended the run.
        """
        return LoopBound(self._chunks(after, raise_errors), self._transport.check_loop)

    async def _chunks(self, after: Cursor | str | None, raise_errors: bool = True) -> AsyncGenerator[Chunk[T], None]:
        cursor = Cursor.parse(after) if isinstance(after, str) else after
        last = cursor
        state = State.NEW if cursor is None else State.OPEN
        typed = not self._yields.plain
        async with aclosing(self._transport.follow(self.id, cursor)) as pages:
            async for page in pages:
                for batch in page.batches:
                    for chunk in decode_batch(batch):
                        if state is not _OPEN or chunk.type in RESERVED:
                            state = advance(state, chunk.type, ours=False)
                            self._over = self._over or state is State.ENDED
                            if chunk.type == "error" and raise_errors:
                                raise _raised(chunk.error, chunk)
                        elif typed and chunk.type == "data":
                            chunk = self._typed(chunk)
                        yield chunk
                last = page.cursor
        if state is not State.ENDED and (last is None or last != cursor):
            raise RemoteProtocolError("the run's chunks stopped before one that ends it")

    def _typed(self, chunk: Chunk[Any]) -> Chunk[Any]:
        data = _read(self._yields, chunk.data, "data")
        return Chunk(chunk.type, data, chunk.progress, chunk.error, chunk.source, chunk.time, chunk.seq, chunk.epoch)

    def values(self, after: Cursor | str | None = None) -> AsyncGenerator[T, None]:
        """What the producer yielded: the data of the data chunks.

        Raises as `chunks`, and `RunRestarted` when a new attempt takes back a value that was given. What lies before
        `after` counts as given, by whoever read up to there.
        """
        return LoopBound(self._values(after), self._transport.check_loop)

    async def _values(self, after: Cursor | str | None) -> AsyncGenerator[T, None]:
        after = Cursor.parse(after) if isinstance(after, str) else after
        before = 0 if after is None else after.seq
        fold, newest = Fold(), dict[str | None, int]()
        async with aclosing(self._chunks(after)) as chunks:
            async for chunk in chunks:
                if chunk.type == "data":
                    newest[chunk.source] = chunk.seq
                    yield chunk.data
                elif (
                    chunk.type in MARKERS
                    and (retraction := fold.feed(chunk)) is not None
                    and (before > retraction.after or retraction.covers_any(newest))
                ):
                    raise RunRestarted(
                        "a new attempt took back values that were given: begin again",
                        details={"kept_through": retraction.after, "cursor": str(chunk.cursor)},
                    )

    async def text(self) -> str:
        """The run's whole text (its data chunks that are strings, and text deltas), once it has ended, with what
        restarts took back left out. Raises as `chunks`."""
        return "".join([data for data in await self._surviving() if isinstance(data, str)])

    async def _surviving(self) -> list[Any]:
        """Data of the data chunks and text deltas that still stand at the end, folded as they come."""
        fold, said = Fold(), list[tuple[int, str | None, Any]]()
        head = await self.status()
        async with aclosing(self._chunks(head.earliest)) as chunks:
            async for chunk in chunks:
                if chunk.type in ("data", "text-delta"):
                    said.append((chunk.seq, chunk.source, chunk.data))
                elif chunk.type in MARKERS and (retraction := fold.feed(chunk)) is not None:
                    retraction.cut(said, lambda each: each[:2])
        return [data for _, _, data in said]

    async def result(self, timeout: float | timedelta | None = None) -> R:
        """The run's result, once it has ended: what the producer returned or gave as `loom.Result`. Of a generator
        that gave none: its text if it yielded strings, else the list of its values, or None if there were none.

        Raises the `RunError` it ended with, `TimeoutError` after `timeout` seconds (the run goes on).
        """
        value = await self._within(timeout, self._value())
        return cast(R, value if value is None or self._returns.plain else _read(self._returns, value, "result"))

    async def usage(self) -> Usage | None:
        """What the models that the run asked have used, once it has ended, however it ended; None if it asked none.
        What an attempt used whose worker was lost is not known, and not in it."""
        head = await self._ended()
        page = await self._transport.read(self.id, head.cursor_at(head.tail - 1), limit=1, wait=0.0)
        return decode_batch(page.batches[-1])[-1].usage

    async def wait(self, timeout: float | timedelta | None = None) -> Head:
        """Wait for the end, however it ends; gives the `status` then. Raises `TimeoutError` (the run goes on)."""
        return await self._within(timeout, self._ended())

    async def _value(self) -> Any:
        """The result as JSON has it."""
        head = await self._ended(full=True)
        if head.error is not None:
            raise _raised(head.error)
        value = decode(bytes(head.result)) if head.result is not None else None
        return _collected(await self._surviving()) if value is None else value

    async def _within(self, timeout: float | timedelta | None, work: Awaitable[V]) -> V:
        try:
            async with asyncio.timeout(seconds(timeout)):
                return await work
        except TimeoutError:
            if timeout is None:
                raise
            raise TimeoutError(f"run {self.id} has not ended within {seconds(timeout):g} s; it goes on") from None

    async def _ended(self, *, full: bool = False) -> Head:
        head = await self.status(full=full)
        if head.ended:
            return head
        await self._follow_out(head.latest)
        try:
            head = await self.status(full=full)
        except Unavailable:  # it was there a moment ago: following waits until it is again
            await self._follow_out(head.latest)
            head = await self.status(full=full)
        if not head.ended:
            raise RemoteProtocolError("the run's chunks stopped, but it has not ended")
        return head

    async def _follow_out(self, after: Cursor | None) -> None:
        async with aclosing(self._transport.follow(self.id, after)) as pages:
            async for _ in pages:
                pass

    async def status(self, *, full: bool = False) -> Head:
        """The run's state now. Its input (`meta.input`) and `result` are left out unless `full`, so that asking often
        costs no more for a large run. Raises `LogNotFound`."""
        head = await self._transport.head(self.id, full=full)
        self._over = self._over or head.ended
        return head

    async def send(self, type: str, data: Any = None, *, id: str | None = None) -> None:
        """Tell the running producer something; it takes it with `ctx.receive`. Durable when this returns.

        Sending again with the same `id` is sending once. Raises `LogEnded` when the run has ended.
        """
        message_id = id or uuid.uuid4().hex
        await self._transport.send(self.id, Message(type, data, "client", message_id))

    async def cancel(self, *, wait: bool = False, timeout: float | timedelta | None = None) -> None:
        """Ask the run to end; the request is durable when this returns. Idempotent; of an ended run it does nothing.

        The end is confirmed by the run's last chunk, once the producer is really gone: with `wait` this waits for it.
        """
        await self._transport.cancel(self.id)
        if wait:
            await self.wait(timeout)


class OwnedRun(Generic[T, R]):
    """``async with client.stream(...) as run``: starts a run that is ours; leaving the block cancels it.

    The owner's heartbeat goes on in the background: when this process dies, the run is cancelled within
    `limits.OWNER_LEASE`. Iterating it directly is short for the block around ``async for chunk in run``.
    """

    def __init__(self, begin: Callable[[float], Awaitable[Run[T, R]]], transport: Transport) -> None:
        self._begin = begin
        self._transport = transport
        self._run: Run[T, R] | None = None
        self._beat: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<OwnedRun {'not started' if self._run is None else self._run.id}>"

    @property
    def transport(self) -> Transport:
        """How the run is reached, once it is started."""
        return self._transport

    async def __aenter__(self) -> Run[T, R]:
        run = await self._begin(limits.OWNER_LEASE)
        self._run = run
        self._beat = spawn(self._touch(run.id), f"loom-own {run.id}")
        return run

    async def __aexit__(self, *exc: object) -> None:
        self._transport.check_loop()
        assert self._run is not None
        assert self._beat is not None
        if self._run._over:  # there is nothing to cancel
            await cancel_and_wait(self._beat)
            return
        leave = spawn(self._leave(self._run.id), f"loom-leave {self._run.id}")
        try:
            await cancel_and_wait(self._beat)
        finally:
            await wait_out(leave)

    def __aiter__(self) -> AsyncGenerator[Chunk[T], None]:
        return LoopBound(self._iterate(), self._transport.check_loop)

    async def _iterate(self) -> AsyncGenerator[Chunk[T], None]:
        async with self as run, aclosing(run.chunks()) as chunks:
            async for chunk in chunks:
                yield chunk

    def values(self) -> AsyncGenerator[T, None]:
        """Short for the block around ``run.values()``."""
        return LoopBound(self._values(), self._transport.check_loop)

    async def _values(self) -> AsyncGenerator[T, None]:
        async with self as run, aclosing(run.values()) as values:
            async for value in values:
                yield value

    async def _touch(self, run: str) -> None:
        while True:
            await asyncio.sleep(limits.OWNER_LEASE / limits.RENEW_FRACTION)
            try:
                await self._transport.heartbeat(run)
            except LoomError:
                continue  # out of reach for now; if for long, the run is cancelled, as an owner's should be

    async def _leave(self, run: str) -> None:
        """Bounded: who leaves waits for it, even when cancelled."""
        try:
            async with asyncio.timeout(limits.OWNER_LEAVE):
                await self._transport.cancel(run)
        except (LoomError, TimeoutError):
            return  # out of reach, or gone: the lapsing lease cancels it


def _read(codec: Codec, value: Any, field: str) -> Any:
    """As the producer's hints say. If it is not, the fault is not the reader's."""
    try:
        return codec.read(value, field=field)
    except InvalidInput as error:
        raise RemoteProtocolError(f"not what the producer's type hints say: {error}", details=error.details) from None
    except Exception as error:  # user code: a class's own validator refuses it in whatever way
        message = f"not what the producer's type hints say: {field}: {error!r}"
        raise RemoteProtocolError(message, details={"field": field}) from error


def _raised(info: ErrorInfo | None, chunk: Chunk[Any] | None = None) -> RunError:
    """The error a run ended with. Whatever its code, to who reads the run it is a `RunError`."""
    info = info or ErrorInfo("run_failed", "the run failed")
    error = revive(info)
    if not isinstance(error, RunError):
        error = RunFailed(info.message, code=info.code, retryable=info.retryable, details=info.details)
    error.chunk = chunk
    return error


def _collected(values: list[Any]) -> Any:
    if not values:
        return None
    if all(isinstance(value, str) for value in values):
        return "".join(values)
    return values

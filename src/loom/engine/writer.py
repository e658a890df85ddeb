"""The writer: the one holder of the right to append to a run's outbox. Batches without waiting, ends the log.

The first chunk goes out at once; whatever is said while an append is in flight is the next batch. There is no timer:
an idle stream has no added latency, a busy one batches by itself.
"""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

from loom.model import limits
from loom.model.chunk import Batch, Chunk
from loom.model.errors import HandleClosed, LimitExceeded, LoomError, RunFailed
from loom.model.grammar import State, advance, check_type
from loom.model.ports import Fence, Logs
from loom.wire.json import check_depth, encode, encode_into

from .backoff import REPEATABLE, Backoff
from .tasks import cancel_and_wait, spawn

__all__ = ["Line", "Writer", "encode_line"]

_OPEN = State.OPEN
_SMALL = 2 * limits.JSON_DEPTH
"""JSON of this many bytes cannot nest too deeply: each level takes two."""


class Line(NamedTuple):
    """A chunk, encoded."""

    type: str
    json: bytes


class Writer:
    """Appends one attempt's chunks, in order, each exactly once.

    `put` never waits; a caller that may say much awaits `room` when `full`. A batch whose outcome is unknown is sent
    again byte for byte. `Fenced`, `Conflict` and `LogEnded` break the writer for good: it never adopts another tail.
    Whoever waits on it when it breaks, or is closed, is told.
    """

    def __init__(self, logs: Logs, run: str, fence: Fence) -> None:
        self._logs = logs
        self._run = run
        self._epoch = fence.epoch
        self._state = State.OPEN if fence.tail else State.NEW
        self._seq = self._acked = fence.tail
        self._first = fence.tail + 1
        self._buffer = bytearray()
        self._broken: LoomError | None = None
        self._idle: asyncio.Future[None] | None = None
        self._settled: asyncio.Future[None] | None = None
        self.on_broken: asyncio.Future[LoomError] = asyncio.get_running_loop().create_future()
        self._task = spawn(self._pump(), f"loom-writer {run}")
        self._task.add_done_callback(self._gone)

    @property
    def seq(self) -> int:
        """The last chunk that was put."""
        return self._seq

    @property
    def acknowledged(self) -> int:
        """The last chunk that the store has acknowledged."""
        return self._acked

    @property
    def full(self) -> bool:
        """Whether the pending batch has reached its bound: await `room` before the next `put`."""
        return len(self._buffer) >= limits.BATCH_BYTES or self._seq - self._first >= limits.BATCH_CHUNKS - 1

    def put(self, chunk: Chunk[Any]) -> bool:
        """Say `chunk`; whether the writer is `full` now. It is encoded here and now: what happens to its data later
        changes nothing.

        Raises `LocalProtocolError` (the grammar forbids it), `LimitExceeded` (too large or nested too deeply),
        `RunFailed` (`invalid_output`: it has no JSON), or what broke the writer. Nothing was said then.
        """
        if chunk.type == "data" and self._state is _OPEN and self._broken is None:
            state = _OPEN  # nearly every chunk, nearly always
        else:
            state = self._admit(chunk.type)
        buffer = self._buffer
        start = len(buffer)
        try:
            encode_into(chunk, buffer, -1)
            if len(buffer) - start > _SMALL:
                _check(buffer[start:])
        except BaseException as error:
            del buffer[start:]
            raise _refusal(chunk, error) from None
        buffer += b"\n"
        return self._accept(state)

    def put_line(self, line: Line) -> bool:
        """`put` of a chunk that `encode_line` has encoded."""
        state = self._admit(line.type)
        self._buffer += line.json
        self._buffer += b"\n"
        return self._accept(state)

    def _admit(self, type: str) -> State:
        if self._broken is not None:
            raise self._broken
        if self._state is State.OPEN and type == "data":
            return State.OPEN
        check_type(type)
        return advance(self._state, type)

    def _accept(self, state: State) -> bool:
        self._state = state
        self._seq = seq = self._seq + 1
        if self._idle is not None:
            self._idle.set_result(None)
            self._idle = None
        return seq - self._first >= limits.BATCH_CHUNKS - 1 or len(self._buffer) >= limits.BATCH_BYTES

    async def room(self) -> None:
        """Wait until the pending batch is below its bound. Raises what broke the writer."""
        while self.full:
            await self._settle()

    async def flush(self) -> None:
        """Wait until all that was put is acknowledged. Raises what broke the writer."""
        target = self._seq
        while self._acked < target:
            await self._settle()

    async def end(self, chunk: Chunk[Any]) -> None:
        """Say the last chunk (`complete` or `error`), ending the log in the same atomic act, and wait for it."""
        self.put(chunk)
        await self.flush()

    async def aclose(self) -> None:
        """Stop. What was not acknowledged by now may or may not be stored."""
        await cancel_and_wait(self._task)

    async def _settle(self) -> None:
        if self._broken is not None:
            raise self._broken
        if self._settled is None:
            self._settled = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._settled)
        if self._broken is not None:
            raise self._broken

    async def _pump(self) -> None:
        loop = asyncio.get_running_loop()
        backoff = Backoff.of_store()
        try:
            while True:
                if self._seq < self._first:
                    self._idle = loop.create_future()
                    await self._idle
                was_full = self.full
                batch = self._take()
                if was_full:
                    self._wake()  # there is room: the next batch fills while this one is stored
                await self._append(batch, backoff)
                self._acked = batch.last
                self._wake()
        except LoomError as error:
            self._break(error)
        except Exception as error:  # a store's own fault: whoever waits on us must hear of it, not hang
            self._break(LoomError(f"{type(error).__name__}: {error}"))

    def _take(self) -> Batch:
        batch = Batch(self._epoch, self._first, self._seq, bytes(self._buffer))
        self._buffer.clear()
        self._first = self._seq + 1
        return batch

    async def _append(self, batch: Batch, backoff: Backoff) -> None:
        end = self._state is State.ENDED and batch.last == self._seq
        while True:
            try:
                await self._logs.append(self._run, batch, end=end)
            except REPEATABLE:
                await backoff.pause()
            else:
                backoff.reset()
                return

    def _wake(self) -> None:
        if self._settled is not None:
            self._settled.set_result(None)
            self._settled = None

    def _break(self, error: LoomError) -> None:
        self._broken = error
        self.on_broken.set_result(error)
        self._wake()

    def _gone(self, task: asyncio.Task[None]) -> None:
        if self._broken is None:
            self._break(HandleClosed("this writer was closed"))


def encode_line(chunk: Chunk[Any]) -> Line:
    """The chunk's JSON; raises as `Writer.put` does for what cannot be said. For producers in threads."""
    try:
        data = encode(chunk)
        if len(data) > _SMALL:
            _check(data)
    except Exception as error:
        raise _refusal(chunk, error) from None
    return Line(chunk.type, data)


def _refusal(chunk: Chunk[Any], error: BaseException) -> BaseException:
    """What a chunk's author is told: by what he did, not by what the encoder ran into."""
    if isinstance(error, RecursionError):
        return LimitExceeded("a chunk's JSON is nested too deeply", code="too_large")
    if isinstance(error, (TypeError, ValueError)):  # no JSON form; a lone surrogate, which UTF-8 has not
        return RunFailed(f"cannot send a {chunk.type!r} chunk: {error}", code="invalid_output")
    return error


def _check(data: bytes | bytearray) -> None:
    if len(data) > limits.CHUNK_BYTES:
        raise LimitExceeded(f"a chunk of {len(data)} bytes is larger than {limits.CHUNK_BYTES}", code="too_large")
    try:
        check_depth(data)
    except LoomError as error:
        raise LimitExceeded(f"a chunk's {error}", code="too_large") from None

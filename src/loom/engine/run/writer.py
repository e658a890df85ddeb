"""The writer: the one holder of the right to append to a run's outbox. Batches without waiting, ends the log.

The first chunk goes out at once; whatever is said while an append is in flight, or in the same turn of the loop, is the
next batch. There is no timer: an idle stream has no added latency, a busy one batches by itself.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from loom.backoff import REPEATABLE, Backoff
from loom.model import limits
from loom.model.chunk import Batch, Chunk
from loom.model.errors import HandleClosed, LimitExceeded, LoomError, RunFailed
from loom.model.grammar import State, advance, check_type, is_output
from loom.model.keep import Keep
from loom.model.ports import Commit, Fence, LogStore, closing
from loom.tasks import cancel_and_wait, spawn
from loom.wire.data import encode_data
from loom.wire.failure import line_of
from loom.wire.json import check_depth, decode_chunk
from loom.wire.locate import locate

from .trim import Trimmer

__all__ = ["InvalidOutput", "OutputTooLarge", "Writer", "encode_chunk"]

BATCH_BYTES = 256 << 10
"""The writer's pending batch: beyond it the producer waits. Large enough that a row's overhead vanishes."""

BATCH_CHUNKS = 1024
"""The same in chunks: what one append, one decode and one skip inside a batch may cost."""

_OPEN, _ENDED = State.OPEN, State.ENDED  # looked at once a chunk

_OURS = (__name__, encode_data.__module__, check_depth.__module__)
"""The modules that encode a chunk."""

_SMALL = 2 * limits.JSON_DEPTH
"""JSON of this many bytes cannot nest too deeply: each level takes two."""


class InvalidOutput(RunFailed):
    """A value has no JSON form. Saying it again would fail again: no attempt follows."""

    default_code = "invalid_output"


class OutputTooLarge(InvalidOutput, LimitExceeded):
    """A chunk that is larger than any may be. Not caught by its producer it is the run's end, under its own code."""

    default_code = "too_large"


class Writer:
    """Appends one attempt's chunks, in order, each exactly once.

    `put` never waits; a caller that may say much awaits `room` when told to. A batch whose outcome is unknown is sent
    again byte for byte. `Fenced`, `Conflict` and `LogEnded` break the writer for good: it never adopts another tail.
    Whoever waits on it when it breaks, or is closed, is told. The log is trimmed by `keep`; beyond `limits.LOG_BYTES`
    of what is kept it takes no more output, but the end, unless `keep` bounds the bytes.
    """

    def __init__(self, logs: LogStore, run: str, fence: Fence, *, keep: Keep | None = None) -> None:
        self._logs = logs
        self._run = run
        self._epoch = fence.epoch
        self._state: State | None = State.OPEN if fence.tail else State.NEW  # None: open, and full
        self._size = fence.size
        self._most = float("inf") if keep is not None and keep.bytes is not None else limits.LOG_BYTES
        self._trimmer = None if keep is None else Trimmer(logs, run, keep, fence, self._freed)
        self._acked = fence.tail
        self._first = fence.tail + 1
        self._lines: list[bytes] = []  # what is pending
        self._bytes = 0
        self._bound = limits.YIELD_EVERY  # of lines: then who puts is to give way, long before the batch is full
        self._taken = time.monotonic()
        self._resting = True  # nothing is in flight, and nothing went out in this turn of the loop
        self._at_once = True  # whether the store needs no waiting, as far as is known
        self._broken: LoomError | None = None
        self._idle: asyncio.Future[None] | None = None
        self._settled: asyncio.Future[None] | None = None
        self._loop = asyncio.get_running_loop()
        self.on_broken: asyncio.Future[LoomError] = self._loop.create_future()
        self._task = spawn(self._pump(), f"loom-writer {run}")
        self._task.add_done_callback(self._gone)

    @property
    def seq(self) -> int:
        """The last chunk that was put."""
        return self._first + len(self._lines) - 1

    @property
    def acknowledged(self) -> int:
        """The last chunk that the store has acknowledged."""
        return self._acked

    @property
    def spoke(self) -> float:
        """When something was last said, in monotonic seconds. What still waits for the store is being said now."""
        return time.monotonic() if self._lines else self._taken

    @property
    def full(self) -> bool:
        """Whether the pending batch has reached its bound: await `room` before the next `put`."""
        return self._bytes >= BATCH_BYTES or len(self._lines) >= BATCH_CHUNKS

    def put(self, chunk: Chunk[Any]) -> bool:
        """Say `chunk`; whether to await `room` before the next. It is encoded here and now: what happens to its data
        later changes nothing.

        Raises `LocalProtocolError` (the grammar forbids it), `OutputTooLarge` (too large or nested too deeply),
        `RunFailed` (`invalid_output`: it has no JSON), or what broke the writer. Nothing was said then.
        """
        return self.put_line(chunk.type, encode_chunk(chunk))

    def put_line(self, type: str, json: bytes) -> bool:
        """`put` of a chunk of `type` that `encode_chunk` has encoded."""
        if type != "data" or self._state is not _OPEN:  # nearly every chunk, nearly always, is neither
            self._state = self._admit(type)
        self._lines.append(json)
        self._bytes += len(json) + 1
        if self._resting:
            self._resting = False
            self._send()
        return len(self._lines) >= self._bound or self._bytes >= BATCH_BYTES

    def _admit(self, type: str) -> State:
        if self._broken is not None:
            raise self._broken
        check_type(type)
        if self._state is None and is_output(type):
            raise RunFailed(
                f"the log is full: it holds {self._size} bytes of {limits.LOG_BYTES} (with keep=loom.Keep(bytes=...)"
                " the oldest is forgotten instead)",
                code="log_full",
            )
        return advance(self._state or _OPEN, type)

    async def room(self) -> None:
        """If `put` said so: give way to others, and wait until the pending batch is below its bound. Raises what broke
        the writer."""
        if len(self._lines) < self._bound and self._bytes < BATCH_BYTES:
            return
        if not self.full:
            await asyncio.sleep(0)
        while self.full:
            await self._settling()
        self._bound = min(len(self._lines) + limits.YIELD_EVERY, BATCH_CHUNKS)

    async def flush(self) -> None:
        """Wait until all that was put is acknowledged. Raises what broke the writer."""
        target = self.seq
        while self._acked < target:
            await self._settling()

    async def end(self, chunk: Chunk[Any]) -> None:
        """Say the last chunk (`complete` or `error`), ending the log in the same atomic act, and wait for it."""
        self.put(chunk)
        await self.flush()

    async def aclose(self) -> None:
        """Stop. What was not acknowledged by now may or may not be stored."""
        try:
            await cancel_and_wait(self._task)
        finally:
            if self._trimmer is not None:
                await self._trimmer.aclose()

    def give_up(self, error: LoomError) -> None:
        """Write nothing more: whoever waits, or says something, is told `error`."""
        if self._broken is None:
            self._break(error)
        self._task.cancel()

    async def _settling(self) -> None:
        if self._broken is not None:
            raise self._broken
        if self._settled is None:
            self._settled = self._loop.create_future()
        await asyncio.shield(self._settled)
        if self._broken is not None:
            raise self._broken

    # --- at once, if the store can ---

    def _send(self) -> None:
        """What is pending goes out: here and now, or by the pump."""
        if self._at_once and self._append_nowait():
            self._loop.call_soon(self._turn)
        elif self._idle is not None:
            self._idle.set_result(None)
            self._idle = None

    def _append_nowait(self) -> bool:
        """Whether that was possible, or broke the writer."""
        batch, commit = self._take()
        try:
            self._at_once = self._logs.append_nowait(self._run, batch, commit)
        except REPEATABLE:
            self._put_back(batch)
            return False
        except Exception as error:  # a store's own fault: whoever waits on us must hear of it
            self._break(error)
            return True
        if not self._at_once:
            self._put_back(batch)
            return False
        self._acked = batch.last
        if self._trimmer is not None:
            self._trimmer.stored(batch)
        if self._settled is not None:
            self._wake()
        return True

    def _put_back(self, batch: Batch) -> None:
        self._lines = batch.lines()
        self._first = batch.first
        self._bytes = len(batch.payload)
        self._size -= self._bytes

    def _turn(self) -> None:
        """A turn of the loop has passed since something went out."""
        if self._lines and self._broken is None:
            self._send()
        else:
            self._resting = True

    # --- else a task waits for the store ---

    async def _pump(self) -> None:
        try:
            while True:
                if not self._lines:
                    self._idle = self._loop.create_future()
                    await self._idle
                was_full = self.full
                batch, commit = self._take()
                if was_full:
                    self._wake()  # there is room: the next batch fills while this one is stored
                try:
                    await self._logs.append(self._run, batch, commit)
                except REPEATABLE:
                    await self._append_again(batch, commit)
                self._acked = batch.last
                if self._trimmer is not None:
                    self._trimmer.stored(batch)
                self._wake()
                self._resting = not self._lines
        except Exception as error:  # a store's own fault: whoever waits on us must hear of it, not hang
            self._break(error)

    async def _append_again(self, batch: Batch, commit: Commit | None) -> None:
        backoff = Backoff.of_store()
        while True:
            await backoff.pause()
            try:
                await self._logs.append(self._run, batch, commit)
            except REPEATABLE:
                continue
            return

    # --- both ---

    def _take(self) -> tuple[Batch, Commit | None]:
        """The pending batch, and the commit of one that ends the log."""
        lines, first = self._lines, self._first
        self._lines = []
        self._first = end = first + len(lines)
        self._size += self._bytes
        self._bytes = 0
        if self._size > self._most and self._state is _OPEN:
            self._state = None
        self._bound = limits.YIELD_EVERY
        self._taken = time.monotonic()
        commit = closing(decode_chunk(lines[-1])) if self._state is _ENDED else None
        lines.append(b"")
        return Batch(self._epoch, first, end - 1, b"\n".join(lines)), commit

    def _freed(self, size: int) -> None:
        """So much is no longer kept."""
        self._size -= size
        if self._state is None and self._size <= self._most:
            self._state = _OPEN

    def _wake(self) -> None:
        if self._settled is not None:
            self._settled.set_result(None)
            self._settled = None

    def _break(self, error: Exception) -> None:
        if not isinstance(error, LoomError):
            error = LoomError(f"{type(error).__name__}: {error}")
        self._broken = error
        self._state = State.ENDED  # whatever is said from now on, `_admit` looks at it
        self.on_broken.set_result(error)
        self._wake()

    def _gone(self, task: asyncio.Task[None]) -> None:
        if self._broken is None:
            self._break(HandleClosed("this writer was closed"))


def encode_chunk(chunk: Chunk[Any]) -> bytes:
    """The chunk's JSON; raises as `Writer.put` does for what cannot be said."""
    try:
        data = encode_data(chunk)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # user code: a value's JSON form may raise anything
        raise _refusal(chunk, error) from error
    if len(data) > _SMALL:
        _check(data)
    return data


def _refusal(chunk: Chunk[Any], error: BaseException) -> LoomError:
    """The error for a chunk's author: by its cause, not by where the encoder met it."""
    if isinstance(error, RecursionError) and _is_the_encoder_s(error):
        return OutputTooLarge("a chunk's JSON is nested too deeply")
    path, kind = locate(chunk)
    return InvalidOutput(
        f"cannot send a {chunk.type!r} chunk: {path} ({kind}): {line_of(error)}",
        details={"type": type(error).__qualname__, "path": path},
    )


def _is_the_encoder_s(error: BaseException) -> bool:
    """True if the encoder raised it itself, not user code that it called."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is None or trace.tb_frame.f_globals.get("__name__") in _OURS


def _check(data: bytes) -> None:
    """Raises `OutputTooLarge` for JSON that is too large, or nested too deeply."""
    if len(data) > limits.CHUNK_BYTES:
        raise OutputTooLarge(
            f"a chunk of {len(data)} bytes is larger than {limits.CHUNK_BYTES}: write it to a file or an object store,"
            " and pass on its name"
        )
    try:
        check_depth(data)
    except LoomError as error:
        raise OutputTooLarge(f"a chunk's {error}") from None

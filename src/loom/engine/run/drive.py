"""Driving a producer: its items become chunks, in its own task or thread. Only the runner calls this.

A sync producer gets a thread of its own. Its items are encoded there, at the yield, and handed over in bursts; a full
hand-over blocks the thread, as a full writer makes an async producer wait.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import AsyncIterable, Callable, Iterator
from typing import Any, NamedTuple

from loom.engine.declare.context import Context
from loom.engine.declare.producer import Producer
from loom.model import limits
from loom.model.chunk import Chunk, Progress, Result
from loom.model.errors import LocalProtocolError, RemoteProtocolError, RunFailed
from loom.model.grammar import RESERVED
from loom.tasks import wait_out
from loom.wire.codec import ANY, Codec
from loom.wire.failure import info_of
from loom.wire.json import decode_chunk

from .readers import Readers
from .slots import ThreadSlot
from .writer import InvalidOutput, Writer, encode_chunk

__all__ = ["Voice", "check_output", "drive"]

_FORMS = {
    "start": "the runner opens attempts; use retry=Retry(...)",
    "complete": "yield loom.Result(value), or return the value from a coroutine",
    "error": "raise an exception",
}

_MARKED = frozenset({Chunk, Progress, Result})
"""What a producer says that is not plain data."""


class _Line(NamedTuple):
    """A chunk, encoded."""

    type: str
    json: bytes


def _line_of(chunk: Chunk[Any]) -> _Line:
    return _Line(chunk.type, encode_chunk(chunk))


class Voice:
    """What a producer says, on its way to the writer."""

    def __init__(self, writer: Writer, readers: Readers | None = None, yields: Codec = ANY) -> None:
        self._writer = writer
        self._yields = yields
        self._put_line = writer.put_line
        self._readers = readers
        self._paced = readers is not None
        self._closed = False
        self._finished = False
        self._barred = yields.ambiguous  # whether each item is looked at
        self._thread: _Thread | None = None
        self.result: Any = None

    @property
    def spoke(self) -> float:
        """When it last said something, in monotonic seconds; at the latest when the store was given it."""
        return self._writer.spoke

    def say(self, item: Any) -> bool:
        """Put `item`; whether the caller must await `room` before the next.

        Raises `LocalProtocolError` for reserved types and after a `Result`, and what `Writer.put` raises.
        """
        if type(item) in _MARKED or self._barred:
            chunk = self.chunk(item)
            return (chunk is not None and self._writer.put(chunk)) or self._paced
        # Plain data, nearly always: the one hot path of a producer, `Writer.put` without its call.
        return self._put_line("data", encode_chunk(Chunk("data", item, None, None, None, time.time()))) or self._paced

    def say_line(self, line: _Line) -> bool:
        """`say` of what was already encoded."""
        return self._writer.put_line(*line) or self._paced

    def chunk(self, item: Any) -> Chunk[Any] | None:
        """The chunk that `item` means; None for the `Result`, which is kept."""
        if self._closed:
            raise asyncio.CancelledError
        if self._finished:
            raise LocalProtocolError("nothing may follow loom.Result: yield it last")
        kind = type(item)
        if kind is Chunk:
            if item.type in RESERVED:
                raise LocalProtocolError(f"a producer does not say {item.type!r} itself: {_FORMS[item.type]}")
            _check_parts(item)
            if item.type == "data":
                check_output(self._yields, item.data, "cannot send a 'data' chunk")
            return Chunk(item.type, item.data, item.progress, item.error, item.source, time.time())
        if kind is Progress:
            chunk = Chunk("progress", None, item, None, None, time.time())
            _check_parts(chunk)
            return chunk
        if kind is Result:
            self._finished = self._barred = True
            self.result = item.value
            return None
        check_output(self._yields, item, "cannot send a 'data' chunk")
        return Chunk("data", item, None, None, None, time.time())

    async def room(self) -> None:
        """Give way to others, and wait for the writer and the slowest reader."""
        await self._writer.room()
        if self._readers is not None:
            await self._readers.room(self._writer.seq)

    async def emit(self, item: Any) -> None:
        """`say`, waiting for room."""
        if self.say(item):
            await self.room()

    def emit_sync(self, item: Any) -> None:
        """`say` from the producer's thread (or one that it started), behind what it has yielded."""
        assert self._thread is not None
        chunk = self.chunk(item)
        if chunk is not None and not self._thread.hand_over(_line_of(chunk)):
            raise asyncio.CancelledError("the run is to stop")

    def outcome(self, returned: Any) -> Any:
        """The run's result, by what the producer returned."""
        if type(returned) is Result:
            return returned.value
        return self.result if returned is None else returned

    def close(self) -> None:
        """Nothing more may be said."""
        self._closed = self._barred = True

    def _attach(self, thread: _Thread) -> None:
        self._thread = thread


def check_output(codec: Codec, value: Any, what: str) -> None:
    """Raise `InvalidOutput` for a value that its readers would get as another one."""
    try:
        fault = codec.fault(value)
    except KeyboardInterrupt:
        raise
    except BaseException:  # user code: a value's JSON form may raise anything, which its encoding tells
        return
    if fault is not None:
        raise InvalidOutput(f"{what}: {fault}", details={"type": type(value).__qualname__})


def _check_parts(chunk: Chunk[Any]) -> None:
    """Whoever reads the log must be able to read a chunk's parts, whatever the author put there."""
    parts = encode_chunk(Chunk(chunk.type, None, chunk.progress, chunk.error, chunk.source))
    try:
        decode_chunk(parts)
    except RemoteProtocolError as error:
        raise LocalProtocolError(f"a {chunk.type!r} chunk that nobody could read: {error}") from None


async def drive(
    producer: Producer[..., Any],
    arguments: dict[str, Any],
    context: Context,
    voice: Voice,
    slot: ThreadSlot,
) -> Any:
    """Run the producer to its end and return the run's result. The producer is really gone when this returns or
    raises. Cancelling cancels it (a sync producer is asked to stop at its next yield)."""
    try:
        return voice.outcome(await _driven(producer, arguments, context, voice, slot))
    except SystemExit as error:  # asyncio would take the whole loop down; it ends this run, as it does in a thread
        raise RunFailed(info_of(error).message, details={"type": "SystemExit"}) from error


async def _driven(
    producer: Producer[..., Any], arguments: dict[str, Any], context: Context, voice: Voice, slot: ThreadSlot
) -> Any:
    if producer.driver.threaded:
        async with slot:
            return await _Thread(producer, arguments, context, voice).run()
    outcome: Any = producer.driver.drive(arguments, context)
    if not hasattr(outcome, "__aiter__"):
        return await outcome
    await _generator(outcome, voice)
    return None


async def _generator(iterable: AsyncIterable[Any], voice: Voice) -> None:
    say, room = voice.say, voice.room
    items = aiter(iterable)
    try:
        async for item in items:
            if say(item):
                await room()
    finally:
        close = getattr(items, "aclose", None)  # a plain async iterator need not have one
        if close is not None:
            await close()


class _Thread:
    """A sync producer in a daemon thread (one that hangs must not hold up the process's exit)."""

    def __init__(self, producer: Producer[..., Any], arguments: dict[str, Any], context: Context, voice: Voice) -> None:
        self._producer = producer
        self._arguments = arguments
        self._context = context
        self._voice = voice
        self._loop = asyncio.get_running_loop()
        self._gate = threading.Condition()
        self._lines: list[_Line] = []
        self._stopped = False
        self._told = False
        self._news = asyncio.Event()
        self._done: asyncio.Future[Any] = self._loop.create_future()
        voice._attach(self)

    async def run(self) -> Any:
        context = contextvars.copy_context()
        name = f"loom-producer {self._producer.name}"
        threading.Thread(target=context.run, args=(self._main,), name=name, daemon=True).start()
        try:
            await self._take_all()
        except BaseException:
            with self._gate:
                self._stopped = True
                self._gate.notify_all()
            try:
                await wait_out(self._done)
            finally:
                if self._done.done():  # not where the loop went away before the thread
                    self._done.exception()  # seen: the stop is what counts, also when it comes twice
            raise
        return self._done.result()

    async def _take_all(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            ended = self._done.done()
            for line in self._swap():
                if self._voice.say_line(line):
                    await self._voice.room()
            if ended:
                return

    def _swap(self) -> list[_Line]:
        with self._gate:
            lines, self._lines = self._lines, []
            self._told = False
            self._gate.notify_all()
        return lines

    def _main(self) -> None:
        """In the thread."""
        self._context._enter_thread()
        try:
            result = self._work()
        except BaseException as error:  # user code: whatever it raised becomes the run's error
            self._tell(self._fail, error)
        else:
            self._tell(self._finish, result)

    def _work(self) -> Any:
        outcome = self._producer.driver.drive(self._arguments, self._context)
        if not isinstance(outcome, Iterator):
            return outcome
        try:
            return self._iterate(outcome)
        finally:
            close = getattr(outcome, "close", None)
            if close is not None:
                close()

    def _iterate(self, items: Iterator[Any]) -> Any:
        while True:
            try:
                item = next(items)
            except StopIteration as stop:
                return stop.value
            chunk = self._voice.chunk(item)
            if chunk is not None and not self.hand_over(_line_of(chunk)):
                return None

    def hand_over(self, line: _Line) -> bool:
        """Whether to go on. Blocks while the loop has not taken what it was given."""
        with self._gate:
            while len(self._lines) >= limits.YIELD_EVERY and not self._stopped:
                self._gate.wait()
            if self._stopped:
                return False
            self._lines.append(line)
            told, self._told = self._told, True
        if not told:
            self._tell(self._news.set)
        return True

    def _tell(self, callback: Callable[..., object], *args: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:
            return  # the loop is gone, and with it everybody who could hear of it

    def _finish(self, result: Any) -> None:
        if not self._done.done():
            self._done.set_result(result)
        self._news.set()

    def _fail(self, error: BaseException) -> None:
        if not isinstance(error, Exception):  # SystemExit and the like end the run, not the worker
            error = RunFailed(info_of(error).message, details={"type": type(error).__name__})
        if isinstance(error, StopIteration):
            error = RuntimeError(f"the producer raised {error!r}")
        if not self._done.done():
            self._done.set_exception(error)
        self._news.set()

"""What a producer is handed: who it is, what it was told, what it may use."""

from __future__ import annotations

import asyncio
import threading
from bisect import bisect_right
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import CancelledError as ThreadCancelled
from concurrent.futures import Future as ThreadFuture
from datetime import timedelta
from itertools import accumulate, chain
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, overload

from loom.affinity import running_loop
from loom.model.ai import AI, NO_MODEL
from loom.model.chunk import Chunk, Message, Progress
from loom.model.errors import StartOver, UsageError
from loom.model.numbers import seconds as seconds_of
from loom.model.parts import Part, ReasoningPart, TextPart, UsagePart, part_of
from loom.wire.json import decode_batch

from .standing import Room, Standing

if TYPE_CHECKING:  # the type of `ctx.client` alone: a run is given its client, and nothing here makes one
    from loom.engine.follow.blocking import SyncClient
    from loom.engine.follow.client import Client

__all__ = ["NO_CLIENT", "Context", "FromThread", "Previous", "RunClient", "Waits"]

T = TypeVar("T")

NO_CLIENT = (
    "there is no client here: ctx.client is that of the worker that drives the run, and in a test"
    " loom.testing.context(client=...) takes one"
)


FromThread = Callable[[Callable[[], Coroutine[Any, Any, Any]]], Any]
"""Makes a call on the run's loop, and waits for it in a thread."""


class RunClient(Protocol):
    """`Context.client` and `Context.client_sync`, made when they are first used."""

    @property
    def client(self) -> Client: ...

    def blocking(self, call: FromThread, loop: asyncio.AbstractEventLoop | None, /) -> SyncClient: ...


class Waits(Protocol):
    """The waits of a run, in which it gives back its slot."""

    def begin(self, main: asyncio.Task[Any] | None) -> None:
        """`main` is the producer's own task from now on; of one in a thread, each call that this makes."""
        ...

    async def sleep(self, seconds: float) -> None: ...


def _said(data: Any) -> str | Part | None:
    """A piece of text, a part of another kind, or nothing of a model's."""
    if isinstance(data, str):
        return data
    part = part_of(data)
    return part.text if isinstance(part, TextPart) else part


class Previous(Sequence[Chunk[Any]]):
    """The output of earlier attempts that still stands, in order. Kept encoded, and decoded a batch at a time as it is
    looked at: of a long one take what you need in one pass. Raises `RemoteProtocolError` where it cannot be read."""

    def __init__(self, standing: Standing | None = None) -> None:
        self._standing = standing or Standing(Room(0))
        self._ends = list(accumulate(self._standing.counts))
        self._decoded: tuple[int, list[Chunk[Any]]] = (-1, [])

    def _chunks(self, index: int) -> list[Chunk[Any]]:
        """Those of the batch at `index`, the last one that was looked at being kept."""
        if self._decoded[0] != index:
            self._decoded = (index, decode_batch(self._standing[index]))
        return self._decoded[1]

    def __iter__(self) -> Iterator[Chunk[Any]]:
        return chain.from_iterable(map(decode_batch, self._standing))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @overload
    def __getitem__(self, index: int) -> Chunk[Any]: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Chunk[Any]]: ...
    def __getitem__(self, index: int | slice) -> Chunk[Any] | Sequence[Chunk[Any]]:
        places = range(len(self))[index]
        return [self._at(place) for place in places] if isinstance(places, range) else self._at(places)

    def _at(self, place: int) -> Chunk[Any]:
        batch = bisect_right(self._ends, place)
        return self._chunks(batch)[place - self._ends[batch]]  # counted from the batch's end


class Context:
    """One attempt's view of its run. Made by the runner (or by `loom.testing.context`), never by users.

    `previous`: what earlier attempts said and still stands. `resources`: what the app's lifespan gave.
    `ai`: the language model of the environment, or the app's own. While the producer's own task waits in `receive` or
    `sleep`, or any of its tasks for a run of `client`, the run gives back its slot, and other runs go on in it.
    """

    def __init__(
        self,
        *,
        run_id: str,
        actor: str,
        attempt: int,
        key: str | None,
        previous: Sequence[Chunk[Any]],
        resources: Any,
        ai: Callable[[], AI] | None,
        emit: Callable[[Any], Coroutine[Any, Any, None]],
        receive: Callable[[str | None, float | None], Coroutine[Any, Any, Message[Any]]],
        convert: Callable[[Any, Any], Any],
        emit_sync: Callable[[Any], None] | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
        waits: Waits | None = None,
        client: RunClient | None = None,
    ) -> None:
        self.run_id = run_id
        self.actor = actor
        self.attempt = attempt
        self.key = key
        self.previous = previous
        self.resources = resources
        self._ai = ai
        self._emit = emit
        self._receive = receive
        self._convert = convert
        self._emit_sync = emit_sync
        self._loop = loop
        self._waits = waits
        self._client = client
        self._thread: int | None = None
        self._cancelled = threading.Event()
        self._gate = threading.Lock()
        self._calls: set[ThreadFuture[Any]] = set()

    @property
    def ai(self) -> AI:
        """The language model. Raises `UsageError`, which names the ways to set one, where neither app nor environment
        provides it."""
        if self._ai is None:
            raise UsageError(NO_MODEL)
        return self._ai()

    @property
    def client(self) -> Client:
        """A client over the store that drives this run. What it starts has this run as its `parent`, and this run's
        `root`, or this run, as its `root`; `start` detaches it, `stream` and `execute` own it.

        Usable until the run is over. Raises `UsageError` where nothing drives the run.
        """
        if self._client is None:
            raise UsageError(NO_CLIENT)
        return self._client.client

    @property
    def client_sync(self) -> SyncClient:
        """`client` for threads, as `loom.connect_sync` gives one. Its calls raise `asyncio.CancelledError` once the run
        is to stop, also while they wait."""
        if self._client is None:
            raise UsageError(NO_CLIENT)
        return self._client.blocking(self._from_thread, self._loop)

    def said(self) -> str:
        """The text that earlier attempts said and that still stands, in text parts, too; "" in a first attempt. What a
        model is to go on from: ``ctx.ai.stream_completion(prompt, continue_from=ctx.said())``.

        Raises `StartOver` where what stands is more than the beginning of a text: reasoning alone, a refusal, a tool's
        call or result, an answer's end.
        """
        said = [_said(chunk.data) for chunk in self.previous if chunk.type in ("data", "text-delta")]
        texts = [part for part in said if isinstance(part, str)]
        others = {type(part) for part in said} - {str, type(None), UsagePart}
        if others - {ReasoningPart} or (others and not texts):
            raise StartOver("what was said is more than the beginning of a text, and no model goes on from it")
        return "".join(texts)

    @property
    def cancelled(self) -> bool:
        """Whether the run is to stop. For sync producers that work long without yielding: look at it now and then."""
        return self._cancelled.is_set()

    async def emit(self, item: Any) -> None:
        """Say `item` (any value, `Progress` or `Chunk`), as a generator's yield does; waits while the writer is full.

        Raises `LocalProtocolError` for reserved types, `LimitExceeded` (`too_large`) for a chunk that is too
        large, `RunFailed` (`invalid_output`) for a value that has no JSON.
        """
        await self._emit(item)

    def emit_sync(self, item: Any) -> None:
        """`emit` from a thread, in order with what the producer yields. Raises `asyncio.CancelledError` once the run is
        to stop."""
        if self._emit_sync is not None:
            self._emit_sync(item)
        else:
            self._from_thread(lambda: self._emit(item))

    async def progress(self, current: float, total: float | None = None, message: str | None = None) -> None:
        """Short for ``emit(Progress(...))``."""
        await self._emit(Progress(current, total, message))

    @overload
    async def receive(self, type: str | None = None, *, timeout: float | None = None) -> Message[Any]: ...
    @overload
    async def receive(self, type: str | None = None, *, into: type[T], timeout: float | None = None) -> Message[T]: ...
    async def receive(self, type: str | None = None, *, into: Any = None, timeout: float | None = None) -> Message[Any]:
        """The next message (of `type`) that this attempt has not taken yet; waits for it.

        Each attempt gets the run's messages from the first on. Messages of other types stay for later calls. `into`
        gives `data` that type. Raises `TimeoutError` after `timeout` seconds, `InvalidInput` when data does not fit.
        """
        try:
            message = await self._receive(type, timeout)
        except TimeoutError:
            if timeout is None:  # not by the time-out
                raise
            raise TimeoutError(f"no {'' if type is None else repr(type) + ' '}message within {timeout:g} s") from None
        if into is None:
            return message
        data = self._convert(message.data, into)
        return Message(message.type, data, message.sender, message.id, message.time)

    def receive_sync(self, type: str | None = None, *, timeout: float | None = None) -> Message[Any]:
        """`receive` from a thread. Raises `asyncio.CancelledError` once the run is to stop, also while it waits."""
        return self._from_thread(lambda: self.receive(type, timeout=timeout))

    async def sleep(self, seconds: float | timedelta) -> None:
        """Wait for so long, as `asyncio.sleep` does, which keeps the run's slot."""
        span = seconds_of(seconds) or 0.0
        await (asyncio.sleep(span) if self._waits is None else self._waits.sleep(span))

    def sleep_sync(self, seconds: float | timedelta) -> None:
        """`sleep` from a thread. Raises `asyncio.CancelledError` once the run is to stop, also while it waits."""
        self._from_thread(lambda: self.sleep(seconds))

    def _enter_thread(self) -> None:
        """The producer's own thread calls this: what it waits for counts as what its run waits for."""
        self._thread = threading.get_ident()

    def _from_thread(self, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        if self._loop is not None and running_loop() is self._loop:
            raise UsageError(
                "an async producer awaits; what ends in _sync is for threads, and would wait for itself here"
            )
        own = self._waits is not None and self._thread == threading.get_ident()
        future = self._begin(self._as_own(call()) if own else call())
        try:
            return future.result()
        except ThreadCancelled:
            raise asyncio.CancelledError("the run is to stop") from None
        finally:
            with self._gate:
                self._calls.discard(future)

    async def _as_own(self, call: Coroutine[Any, Any, T]) -> T:
        assert self._waits is not None
        self._waits.begin(asyncio.current_task())
        return await call

    def _begin(self, coro: Coroutine[Any, Any, T]) -> ThreadFuture[T]:
        assert self._loop is not None
        with self._gate:
            if not self.cancelled and not self._loop.is_closed():
                future = asyncio.run_coroutine_threadsafe(coro, self._loop)
                self._calls.add(future)
                return future
        coro.close()
        raise asyncio.CancelledError("the run is to stop")

    def _cancel(self) -> None:
        """The run is to stop: `cancelled` is true from now on, and no thread waits in a call."""
        with self._gate:
            self._cancelled.set()
            calls = list(self._calls)
        for call in calls:
            call.cancel()

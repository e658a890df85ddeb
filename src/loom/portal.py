"""For code that blocks: one event loop in a thread of its own, and calls into it from any other."""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from concurrent.futures import CancelledError
from contextlib import suppress
from functools import partial
from typing import Any, Generic, Protocol, Self, TypeVar

from loom.affinity import running_loop
from loom.model import limits
from loom.model.errors import HandleClosed, UsageError, closed
from loom.native import Signal, signal, start_thread, use_native_threads
from loom.tasks import TaskSet, spawn, wind_up

__all__ = ["Caller", "Iteration", "Portal"]

T = TypeVar("T")


class Caller(Protocol):
    """Calls from other threads into one event loop."""

    def call(self, coro: Coroutine[Any, Any, T], /) -> T:
        """Run `coro` on the loop and wait for it."""

    def post(self, begin: Callable[[], object], /) -> None:
        """Have `begin` called on the loop, soon, without waiting."""

    def iterate(self, items: AsyncGenerator[T, None], /) -> Iterator[T]:
        """The items of an async iterator, one call each."""

    def drop(self, items: AsyncGenerator[Any, None], /) -> None:
        """Have an async iterator closed, soon, as `post` does."""


class Portal:
    """One event loop in one thread. Calls from any thread run there; interrupting a caller cancels its call. A process
    that is forked off has no such thread: what is called there raises."""

    def __init__(self) -> None:
        self._process = os.getpid()
        self._gate = threading.RLock()  # a signal's handler may call while the thread that it interrupts holds it
        self._closed = False
        self._dropped: set[AsyncGenerator[Any, None]] = set()
        self._closing = TaskSet()
        self._stop = asyncio.Event()
        self._failed: BaseException | None = None
        self._ended: Signal | None = None
        ready = signal()
        start_thread(partial(self._main, ready), "loom-portal", then=self._end)
        ready.wait()
        if self._failed is not None:
            raise self._failed

    def _main(self, ready: Signal) -> None:
        """In the thread. Leaving the runner ends what is still going on."""
        try:
            with asyncio.Runner() as runner:
                self._loop = runner.get_loop()
                use_native_threads(self._loop)
                ready.set()
                runner.run(self._stopped())
                runner.run(wind_up(limits.WIND_UP))
        except Exception as error:  # no loop could be made (too many open files): its maker's error
            self._failed = error
            ready.set()

    def _end(self) -> None:
        if self._ended is not None:
            self._ended.set()

    async def _stopped(self) -> None:
        await self._stop.wait()

    def call(self, coro: Coroutine[Any, Any, T]) -> T:
        """Run `coro` on the loop and wait for it. Interrupted, it is cancelled, and has ended when this raises.

        Raises `HandleClosed` after `close`, and `UsageError` in the portal's own thread, which would wait for itself,
        and in a child of its process, which would wait for ever.
        """
        if self._process != os.getpid():
            coro.close()
            raise UsageError(
                "this client is of the process that this one was forked from: connect in the child (loom.per_process)"
            )
        if running_loop() is self._loop:
            coro.close()
            raise UsageError("an async producer cannot use the blocking client: use loom.connect there")
        call = _Call(coro)
        try:
            self._hand_over(call)
            call.ended.wait()
        except BaseException:
            if not call.is_over:
                self._take_back(call)
            raise
        return call.result()

    def _hand_over(self, call: _Call[Any]) -> None:
        with self._gate:
            if not self._closed:
                self._loop.call_soon_threadsafe(call.begin)
                call.handed_over = True
                return
        call.cancel()
        raise closed()

    def _take_back(self, call: _Call[Any]) -> None:
        """Its caller was interrupted. Closing cancels what was handed over; nobody else knows of what was not."""
        with self._gate:
            if not self._closed:
                self._loop.call_soon_threadsafe(call.cancel)
            elif not call.handed_over:
                call.cancel()
        call.ended.wait()

    def post(self, begin: Callable[[], object]) -> None:
        """Have `begin` called on the loop, soon, without waiting; not at all once the portal is closed. Takes no lock:
        finalizers call it, which run in any thread at any moment."""
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(begin)

    def iterate(self, items: AsyncGenerator[T, None]) -> Iterator[T]:
        """The items of an async generator, one call each. It is closed when the iteration ends, fails or is closed, and
        soon after it was collected."""
        return Iteration(self, items)

    def drop(self, items: AsyncGenerator[Any, None]) -> None:
        """Have an async iterator closed, soon, as `post` does."""
        self.post(partial(self._drop, items))

    def _drop(self, items: AsyncGenerator[Any, None]) -> None:
        self._dropped.add(items)
        if not self._stop.is_set():  # else the runner closes it, as it does all that is alive: never two at once
            self._closing.spawn(self._close(items), "loom-portal-drop")

    async def wait_dropped(self) -> None:
        """On the loop: until what was dropped is closed."""
        await self._closing.wait_all()

    async def _close(self, items: AsyncGenerator[Any, None]) -> None:
        try:
            await items.aclose()
        finally:
            if not self._stop.is_set():  # else this may be cancelled too early, and must leave it to the runner
                self._dropped.discard(items)

    def close(self) -> None:
        """End what still goes on there, and the thread. Idempotent. Calls under way in other threads are cancelled."""
        if self._process != os.getpid():  # it is not ours; somebody may have held its gate when we were forked
            return
        with self._gate:
            if self._closed:
                return
            self._closed = True
            self._ended = signal()
            self._loop.call_soon_threadsafe(self._stop.set)
        self._ended.wait()


class Iteration(Generic[T]):
    """See `Portal.iterate`. No generator: one that is collected cannot tell this from being closed, and would wait, in
    whatever thread the collector interrupts and whatever locks this holds."""

    def __init__(self, portal: Caller, items: AsyncGenerator[T, None]) -> None:
        self._portal = portal
        self._items = items
        # Until then it holds on to the items: if they were collected together, their loop would close them, too.
        self._open = weakref.finalize(self, portal.drop, items)
        self._open.atexit = False  # the process that exits takes the loop along

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        if not self._open.alive:
            raise StopIteration
        try:
            return self._portal.call(self._next())
        except _Ended:
            self.close()
            raise StopIteration from None
        except BaseException:
            self.close()
            raise

    async def _next(self) -> T:
        try:
            return await anext(self._items)
        except StopAsyncIteration:
            raise _Ended from None

    def close(self) -> None:
        """Idempotent."""
        if self._open.detach() is None:
            return
        with suppress(HandleClosed):  # closing the portal has closed it
            self._portal.call(self._items.aclose())


class _Ended(Exception):
    """An async iterator has no more."""


class _Call(Generic[T]):
    """A call on its way to the loop and back. Only one side writes at a time, so that no lock is needed."""

    handed_over = False
    is_over = False

    def __init__(self, coro: Coroutine[Any, Any, T]) -> None:
        self._coro = coro
        self._task: asyncio.Task[T] | None = None
        self.ended = signal()

    def begin(self) -> None:
        """On the loop."""
        if not self.is_over:
            self._task = spawn(self._coro, "loom-portal-call")
            self._task.add_done_callback(self._end)

    def cancel(self) -> None:
        """On the loop; its caller may have been interrupted before it was begun."""
        if self._task is not None:
            self._task.cancel()
        elif not self.is_over:
            self._coro.close()
            self._end(None)

    def _end(self, task: asyncio.Task[T] | None) -> None:
        self.is_over = True
        self.ended.set()

    def result(self) -> T:
        """Once it has ended."""
        if self._task is None or self._task.cancelled():
            raise CancelledError
        return self._task.result()

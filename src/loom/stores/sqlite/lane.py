"""A lane: a thread that does what it is given, in groups. Knows nothing of databases."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from enum import Enum
from queue import Empty, SimpleQueue
from typing import Any, Generic, Protocol, TypeVar

__all__ = ["Crew", "Lane"]

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)


class Crew(Protocol[T_contra]):
    """What works in a lane's thread. Only `open` may raise."""

    @property
    def pause(self) -> float | None:
        """How long to wait for work before `idle` is called; None: for ever."""
        ...

    def open(self) -> None: ...

    def perform(self, group: Sequence[T_contra]) -> None: ...

    def idle(self) -> None: ...

    def close(self) -> None: ...


class _Signal(Enum):
    WAKE = "look at `pause` again"
    CLOSE = "do what was submitted, then end"


class Lane(Generic[T]):
    """Does what is submitted, in order: all that waits while one group is under way is the next group."""

    def __init__(self, name: str, crew: Crew[T]) -> None:
        self._crew = crew
        self._queue: SimpleQueue[T | _Signal] = SimpleQueue()
        # A daemon: a program that forgets to close must still end. Being killed is what a store has to survive anyway.
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None

    async def open(self) -> None:
        """Start the thread; what its crew's `open` raises comes here. Cancelled, it is closed again."""
        self._loop = asyncio.get_running_loop()
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._closed: asyncio.Future[None] = self._loop.create_future()
        self._thread.start()
        try:
            await self._opened
        except asyncio.CancelledError:
            self._queue.put(_Signal.CLOSE)
            raise

    def submit(self, work: T) -> None:
        """Never waits."""
        self._queue.put(work)

    def wake(self) -> None:
        """The crew's `pause` may have become shorter."""
        self._queue.put(_Signal.WAKE)

    def post(self, callback: Callable[..., object], *args: Any) -> None:
        """From the thread: call back on the loop. Nobody is left to tell when the loop is closed."""
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:
            if not self._loop.is_closed():
                raise

    async def aclose(self) -> None:
        """Wait until all that was submitted is done, and the thread has ended."""
        self._queue.put(_Signal.CLOSE)
        await asyncio.shield(self._closed)

    def _fail(self, error: BaseException) -> None:
        if not self._opened.done():
            self._opened.set_exception(error)

    @staticmethod
    def _finish(future: asyncio.Future[None]) -> None:
        if not future.done():
            future.set_result(None)

    def _main(self) -> None:
        try:
            self._crew.open()
        except BaseException as error:  # becomes the outcome of `open`
            self.post(self._fail, error)
            return
        self.post(self._finish, self._opened)
        while self._turn():
            pass
        self._crew.close()
        self.post(self._finish, self._closed)

    def _turn(self) -> bool:
        """One group; False: it was the last."""
        try:
            first = self._queue.get(timeout=self._crew.pause)
        except Empty:
            self._crew.idle()
            return True
        group: list[T] = []
        signals = set()
        for work in (first, *self._waiting()):
            if isinstance(work, _Signal):
                signals.add(work)
            else:
                group.append(work)
        if group:
            self._crew.perform(group)
        return _Signal.CLOSE not in signals

    def _waiting(self) -> list[T | _Signal]:
        waiting = []
        try:
            while True:
                waiting.append(self._queue.get_nowait())
        except Empty:
            return waiting

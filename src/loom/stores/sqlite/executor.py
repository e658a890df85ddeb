"""Between the loop and the two threads: calls go there, outcomes and notices come back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, TypeVarTuple

from loom.model.chunk import Batch
from loom.model.cursor import Cursor
from loom.model.errors import HandleClosed
from loom.model.ports import Durability, Notice, Notify, Unwatch
from loom.stores.watchers import Watchers

from .calls import Append, Call, Session
from .lane import Lane
from .lender import Lender
from .news import News
from .place import Place
from .reader import Reader
from .writer import Writer

__all__ = ["Executor"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Executor:
    """A writing and a reading thread on one file, and who watches it. Opened once, on the loop that uses it."""

    def __init__(self, path: str, durability: Durability, busy: float) -> None:
        self._watchers = Watchers()
        self._lender = Lender()
        self._begun = self._open = False
        place = Place(path)
        self._writing = Lane("loom-sqlite-writer", Writer(place, durability, busy, self._watched, self._written))
        self._reading = Lane("loom-sqlite-reader", Reader(place, busy, self._was_read))

    async def open(self) -> None:
        if self._begun:
            raise HandleClosed("a store object is opened once")
        self._begun = True
        self._loop = asyncio.get_running_loop()
        await self._writing.open()
        try:
            await self._reading.open()
        except BaseException:
            await self._writing.aclose()
            raise
        self._open = True

    async def aclose(self) -> None:
        """Waits for what was submitted; who waits for something to happen gets `HandleClosed`."""
        if not self._open:
            return
        self._open = False
        self._watchers.tell_all(Notice())
        try:
            await self._reading.aclose()
        finally:
            await self._writing.aclose()

    def append(self, act: Callable[[Session, str, Batch], Cursor], log: str, batch: Batch) -> asyncio.Future[Cursor]:
        """`begin`, for what is done most: together with the other appends that wait."""
        future = self._future()
        self._writing.submit(Append(future, act, log, batch))
        return future

    def begin(self, act: Callable[[Session, *Ts], T], *args: *Ts) -> asyncio.Future[T]:
        """Do it in the writing thread, whether its caller waits for the outcome or not."""
        future = self._future()
        self._writing.submit(Call(future, act, *args))
        return future

    async def write(self, act: Callable[[Session, *Ts], T], *args: *Ts) -> T:
        return await self.begin(act, *args)

    async def read(self, act: Callable[[Session, *Ts], T], *args: *Ts) -> T:
        future: asyncio.Future[T] = self._future()
        self._reading.submit(Call(future, act, *args))
        return await future

    def watch(self, topic: str, notify: Notify) -> Unwatch:
        """As `LogStore.watch`; claims that wait have a topic too."""
        if not self._watchers and self._open:
            self._writing.wake()
        return self._watchers.add(topic, notify)

    def _future(self) -> asyncio.Future[Any]:
        if not self._open:
            raise HandleClosed("this store is not open")
        self._lender.begin()
        return self._loop.create_future()

    def _watched(self) -> bool:
        """Asked by the writing thread, too."""
        return bool(self._watchers)

    def _written(self, calls: Sequence[Call], news: News | None) -> None:
        """In the writing thread."""
        self._writing.post(self._deliver, calls, news)

    def _was_read(self, calls: Sequence[Call]) -> None:
        """In the reading thread."""
        self._reading.post(self._settle, calls)

    def _deliver(self, calls: Sequence[Call], news: News | None) -> None:
        """Notifies watchers first: when `append` returns, all of them have its notice."""
        try:
            if self._watchers:
                self._tell(calls, news)
        finally:
            self._settle(calls)

    def _settle(self, calls: Sequence[Call]) -> None:
        self._lender.end(len(calls))
        for call in calls:
            call.settle()

    def _tell(self, calls: Sequence[Call], news: News | None) -> None:
        for call in calls:
            for log, notice in call.told:
                self._watchers.tell(log, notice)
        if news is None:
            self._watchers.tell_all(Notice())
            self._watchers.tell_all(Notice(marks=True))
            return
        for topic, notice in news:
            self._watchers.tell(topic, notice)

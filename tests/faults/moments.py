"""Cancelling a task at each place where it waits, one after the other."""

from __future__ import annotations

import asyncio
import sys
import weakref
from collections.abc import AsyncGenerator, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["Moment", "open_generators"]


class Moment:
    """The `number`-th time that a task whose name begins with `name` waits for something: there it is cancelled."""

    def __init__(self, name: str, number: int) -> None:
        self.name = name
        self.number = number
        self.hit = asyncio.Event()
        self._count = 0
        self._loop = asyncio.get_running_loop()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Tasks that are made inside the block are looked at."""
        self._loop.set_task_factory(self._make)
        try:
            yield
        finally:
            self._loop.set_task_factory(None)

    def _make(self, loop: asyncio.AbstractEventLoop, coro: Any, **more: Any) -> asyncio.Task[Any]:
        return asyncio.Task(_Watched(coro, self), loop=loop, **more)

    def waits(self) -> None:
        """The current task has begun to wait."""
        task = asyncio.current_task()
        assert task is not None
        if not task.get_name().startswith(self.name):
            return
        self._count += 1
        if self._count == self.number:
            self.hit.set()
            self._loop.call_soon(task.cancel)


class _Watched(Coroutine[Any, Any, Any]):
    """A coroutine that tells when it waits."""

    def __init__(self, coro: Coroutine[Any, Any, Any], moment: Moment) -> None:
        self._coro = coro
        self._moment = moment

    def send(self, value: Any) -> Any:
        found = self._coro.send(value)
        self._moment.waits()
        return found

    def throw(self, *error: Any) -> Any:
        found = self._coro.throw(*error)
        self._moment.waits()
        return found

    def close(self) -> None:
        self._coro.close()

    def __await__(self) -> Any:
        raise AssertionError("only a task drives it")


@contextmanager
def open_generators() -> Iterator[list[str]]:
    """The names of asynchronous generators that were begun inside the block and are not closed; asked at its end."""
    begun: list[weakref.ref[AsyncGenerator[Any, Any]]] = []
    names: list[str] = []
    before = sys.get_asyncgen_hooks()

    def first(generator: AsyncGenerator[Any, Any]) -> None:
        begun.append(weakref.ref(generator))
        if before.firstiter is not None:
            before.firstiter(generator)

    sys.set_asyncgen_hooks(first, before.finalizer)
    try:
        yield names
    finally:
        sys.set_asyncgen_hooks(*before)
        left = [generator for ref in begun if (generator := ref()) is not None]
        names += [repr(generator) for generator in left if getattr(generator, "ag_frame", None) is not None]

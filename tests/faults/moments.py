"""Cancelling a task at each place where it waits, one after the other."""

from __future__ import annotations

import ast
import asyncio
import gc
import sys
import weakref
from collections.abc import AsyncGenerator, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["Moment", "Place", "open_generators", "places_in"]

Place = tuple[str, int]
"""A file and a line of it."""


class Moment:
    """The `number`-th time that a task whose name begins with `name` waits for something: there it is cancelled, and
    at the `more` next places where such a task waits."""

    def __init__(self, name: str, number: int, *, more: int = 0) -> None:
        self.name = name
        self.number = number
        self.hit = asyncio.Event()
        self.places: set[Place] = set()
        """Where those stood that were cancelled, and whoever called them."""
        self._left = 1 + more
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

    def waits(self, coro: Any) -> None:
        """The current task, which drives `coro`, has begun to wait."""
        task = asyncio.current_task()
        assert task is not None
        if not task.get_name().startswith(self.name):
            return
        self._count += 1
        if self._count >= self.number and self._left:
            self._left -= 1
            self.hit.set()
            self.places.update(_places(coro))
            self._loop.call_soon(task.cancel)


class _Watched(Coroutine[Any, Any, Any]):
    """A coroutine that tells when it waits."""

    def __init__(self, coro: Coroutine[Any, Any, Any], moment: Moment) -> None:
        self._coro = coro
        self._moment = moment

    def send(self, value: Any) -> Any:
        found = self._coro.send(value)
        self._moment.waits(self._coro)
        return found

    def throw(self, *error: Any) -> Any:
        found = self._coro.throw(*error)
        self._moment.waits(self._coro)
        return found

    def close(self) -> None:
        self._coro.close()

    def __await__(self) -> Any:
        raise AssertionError("only a task drives it")


def _places(waiting: Any) -> Iterator[Place]:
    """Where a suspended coroutine stands, from the outermost to the innermost."""
    while waiting is not None:
        frame = getattr(waiting, "cr_frame", None) or getattr(waiting, "ag_frame", None)
        if frame is not None:
            yield frame.f_code.co_filename, frame.f_lineno
            waiting = getattr(waiting, "cr_await", None) or getattr(waiting, "ag_await", None)
        else:  # what `anext` and `aclose` of a generator give does not say whose it is
            held = gc.get_referents(waiting)
            waiting = next((one for one in held if hasattr(one, "ag_frame") or hasattr(one, "cr_frame")), None)


def places_in(folder: Path) -> Iterator[tuple[str, range]]:
    """Every `await`, `async for` and `async with` of a folder's modules: the file, and the lines that it may stand on
    while it waits."""
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Await(end_lineno=last):
                    yield str(path), range(node.lineno, (last or node.lineno) + 1)
                case ast.AsyncFor() | ast.AsyncWith():
                    yield str(path), range(node.lineno, node.body[0].lineno)


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

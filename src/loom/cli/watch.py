"""Following a run in front of somebody: chunks to a `Show`, and what it shows to standard output."""

from __future__ import annotations

import asyncio
import io
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TextIO

from loom.backoff import Backoff
from loom.connect import connect
from loom.engine.follow.run import Run
from loom.engine.follow.unserved import unserved_note
from loom.model import limits
from loom.model.chunk import Chunk
from loom.model.cursor import Cursor
from loom.model.errors import Unavailable
from loom.model.run import RunState, state_of
from loom.tasks import cancel_and_wait, spawn
from loom.wire.urls import shown_url

from .loops import Signals
from .pump import Pump, write_all
from .shows import Show, Terminal
from .tally import Tally

__all__ = ["Watch", "watching"]

SCREEN_CHARACTERS = 64 << 10
"""What may wait for a terminal or pipe that takes nothing; then the command reads no further."""


class Watch:
    """One run, followed in front of somebody. Made by `watching`."""

    def __init__(self, show: Show, tally: Tally, pump: Pump, signals: Signals) -> None:
        self._show = show
        self._tally = tally
        self._pump = pump
        self._signals = signals
        self._server: str | None = None
        self.cursor: Cursor | None = None
        """Behind the last chunk that was taken."""
        self.last: Chunk[Any] | None = None
        self.ended = False
        """Whether how it ended was said."""

    @property
    def state(self) -> RunState | None:
        """How the run ended; None while it has not."""
        if self.last is None or self.last.type not in ("complete", "error"):
            return None
        return state_of(attempted=True, error=self.last.error, ended=True)

    async def follow(self, run: Run[Any, Any], after: Cursor | None) -> bool:
        """Show the run from `after` to its end. False if a signal came first.

        Raises as `Run.chunks`, except for the run's own error, and `OSError` when nobody takes the output any more.
        """
        return await self._unless_left(run, self._read(run, after))

    async def tail(self, run: Run[Any, Any], begin: Callable[[], Awaitable[Cursor | None]]) -> bool:
        """`follow` from the cursor that `begin` returns. Both wait for a server that is away."""

        async def read() -> None:
            await self._read(run, await self._reached(begin))

        return await self._unless_left(run, read())

    async def _reached(self, begin: Callable[[], Awaitable[Cursor | None]]) -> Cursor | None:
        backoff, away = Backoff(*limits.RECONNECT), False
        while True:
            try:
                after = await begin()
            except Unavailable:
                if self._server is None:
                    raise
                if not away:
                    self._outage(self._server)
                away = True
                await backoff.pause()
            else:
                if away:
                    self._outage(None)
                return after

    async def _unless_left(self, run: Run[Any, Any], work: Coroutine[Any, Any, None]) -> bool:
        told = asyncio.Event()
        reading = spawn(work, "loom-follow")
        noting = spawn(self._note_unserved(run), "loom-unserved")
        leaving = spawn(told.wait(), "loom-leave")
        try:
            with self._signals.first(told.set):
                await asyncio.wait({reading, leaving, self._pump.done}, return_when=asyncio.FIRST_COMPLETED)
            if self._pump.done.done():
                self._pump.done.result()
            return reading.done() and reading.result() is None
        finally:
            await cancel_and_wait(reading, leaving, noting)

    async def _read(self, run: Run[Any, Any], after: Cursor | None) -> None:
        async for chunk in run.chunks(after, raise_errors=False):
            taken_back = self._tally.take(chunk, time.monotonic())
            self._show.take(chunk, taken_back)
            self.cursor, self.last = chunk.cursor, chunk
            self._pump.nudge()
            if len(self._show) > SCREEN_CHARACTERS:
                await self._pump.settle()

    async def _note_unserved(self, run: Run[Any, Any]) -> None:
        """Nothing comes: perhaps nobody is there from whom it could."""
        await asyncio.sleep(limits.UNSERVED_AFTER)
        seen = self.cursor
        note = await unserved_note(run.transport, run.id)
        if note is not None and self.cursor == seen:
            self._show.aside(f"note: {note}\n")
            self._pump.nudge()

    def note(self, text: str) -> None:
        """What a live line is to say from now on."""
        if isinstance(self._show, Terminal):
            self._show.note = text
            self._pump.nudge()

    def connected(self, url: str) -> connect:
        """A client of a server, to be entered; when that is out of reach, whoever watches is told."""

        self._server = shown_url(url)
        return connect(url, on_outage=lambda lost: self._outage(self._server if lost else None))

    def _outage(self, place: str | None) -> None:
        self._show.outage(place, time.monotonic())
        self._pump.nudge()

    def result(self, value: Any) -> None:
        self._show.result(value)

    async def end(self) -> None:
        """Say how it ended, and write all that is left."""
        self.ended = True
        self._show.end(self.state, time.monotonic())
        await self._pump.settle()


@asynccontextmanager
async def watching(show: Show, tally: Tally, signals: Signals) -> AsyncIterator[Watch]:
    """What is shown goes to standard output; what the process itself prints meanwhile is kept apart from it."""
    out = sys.stdout

    def pull() -> bytes:
        return show.flush(time.monotonic()).encode(out.encoding, "replace")

    def leave() -> None:
        if show.moves:
            write_all(out.fileno(), b"\x1b[J\r\n")  # what is half drawn goes

    out.flush()
    async with Pump(out.fileno(), pull, limits.REDRAW if show.moves else None) as pump:
        signals.before_exit = leave
        with _prints_aside(show, pump):
            watch = Watch(show, tally, pump, signals)
            try:
                yield watch
            finally:
                if show.moves and not watch.ended:
                    await watch.end()  # no live line is left behind


@contextmanager
def _prints_aside(show: Show, pump: Pump) -> Iterator[None]:
    """Producers that run in this process may print: that must neither tear the screen nor mix with the output."""
    loop = asyncio.get_running_loop()

    def told(text: str) -> None:
        show.aside(text)
        pump.nudge()

    stdout, stderr = sys.stdout, sys.stderr
    aside = _Aside(lambda text: loop.call_soon_threadsafe(told, text), stderr)
    sys.stdout = aside
    if show.moves:
        sys.stderr = aside
    try:
        yield
    finally:
        sys.stdout, sys.stderr = stdout, stderr
        aside.finish()


class _Aside(io.TextIOBase):
    """A text file whose whole lines go to `tell`."""

    def __init__(self, tell: Callable[[str], object], real: TextIO) -> None:
        self._tell = tell
        self._real = real
        self._part = ""
        self._lock = threading.Lock()

    def write(self, text: str) -> int:
        with self._lock:  # sync producers print from threads
            lines, newline, self._part = (self._part + text).rpartition("\n")
        if newline:
            self._tell(lines + newline)
        return len(text)

    def finish(self) -> None:
        """Tell what has no line end."""
        if self._part:
            self.write("\n")

    def fileno(self) -> int:
        return self._real.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._real.encoding

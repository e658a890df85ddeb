"""The event loop of a command, and the signals that end it: the first one asks, the second one leaves at once."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from loom.engine.run.loop import loop_runner
from loom.model import limits
from loom.tasks import wind_up

__all__ = ["Interrupted", "Signals", "run"]

T = TypeVar("T")

_NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """A signal ended the command. Not an `Exception`: nothing on the way out may take it for a failure."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number

    @property
    def exit(self) -> int:
        """As shells tell it."""
        return 128 + self.number


class Signals:
    """What SIGINT, SIGTERM and SIGHUP do: the first cancels the command, or whatever `first` says; the second exits."""

    def __init__(self, task: asyncio.Task[object]) -> None:
        self._task = task
        self._first: Callable[[], None] = self._cancel
        self.number = 0
        """The signal that came first; 0: none."""
        self.before_exit: Callable[[], None] = lambda: None
        """Called before the second signal ends the process: must not raise or wait."""
        for number in _NUMBERS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup, or a shell's background job
                asyncio.get_running_loop().add_signal_handler(number, self._arrived, number)

    @contextmanager
    def first(self, action: Callable[[], None]) -> Iterator[None]:
        """Inside the block the first signal calls `action` instead."""
        before, self._first = self._first, action
        try:
            yield
        finally:
            self._first = before

    async def wait(self) -> None:
        """Until the first signal."""
        told = asyncio.Event()
        with self.first(told.set):
            await told.wait()

    def _cancel(self) -> None:
        self._task.cancel()

    def _arrived(self, number: int) -> None:
        if self.number:
            self.before_exit()
            os._exit(128 + number)
        self.number = number
        self._first()


def run(main: Callable[[Signals], Awaitable[T]]) -> T:
    """Run `main` in a loop of its own (uvloop's, if installed). Raises `Interrupted` when a signal ended it."""

    async def with_signals() -> tuple[T | None, int]:
        task = asyncio.current_task()
        assert task is not None
        signals = Signals(task)
        try:
            return await main(signals), 0
        except asyncio.CancelledError:
            if not signals.number:
                raise
            return None, signals.number

    with loop_runner() as runner:
        try:
            result, number = runner.run(with_signals())
        finally:
            runner.run(wind_up(limits.WIND_UP))
    if number:
        raise Interrupted(number)
    return result  # type: ignore[return-value]  # a result is None only if `main` gave None

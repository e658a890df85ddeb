"""Virtual time: a loop on which nobody waits. When nothing is ready, the clock jumps to the next timer.

What a thread or a socket does still takes its real time; the clock goes on meanwhile.
"""

from __future__ import annotations

import asyncio
import selectors
import types
from typing import Any

import pytest

__all__ = ["Clock", "VirtualLoop", "virtual_time"]

_MODULES = (
    "engine.attempt",
    "engine.drive",
    "engine.publisher",
    "engine.readers",
    "engine.runner",
    "engine.trim",
    "engine.worker",
    "engine.writer",
    "stores.memory.store",
)
"""Those that read clocks themselves."""

Events = list[tuple[selectors.SelectorKey, int]]


class _Selector(selectors.DefaultSelector):
    """Asks for events without waiting; the time-out that was given passes at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0

    def select(self, timeout: float | None = None) -> Events:
        if timeout is None:
            return super().select(None)
        events = super().select(0)
        if not events:
            self.now += max(timeout, 0.0)
        return events


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop on virtual time."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now

    def stand_still(self, seconds: float) -> None:
        """As if the process had been stopped, or its loop blocked: the time passes and nothing happens in it."""
        self._virtual.now += seconds


class Clock:
    """The time of the loop that first asks, also for threads, which have none."""

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None

    def __call__(self) -> float:
        if self.loop is None:
            self.loop = asyncio.get_running_loop()
        return self.loop.time()

    def forget(self) -> None:
        """The next loop that asks is meant from now on."""
        self.loop = None


@pytest.fixture
def virtual_time(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The engine's clocks are the loop's; gives the monotonic one. The wall clock follows it.

    For tests whose `anyio_backend` is ``("asyncio", {"loop_factory": VirtualLoop})``.
    """
    now = Clock()
    clock: Any = types.SimpleNamespace(monotonic=now, time=lambda: 1_700_000_000.0 + now())
    for module in _MODULES:
        monkeypatch.setattr(f"loom.{module}.time", clock)
    return now

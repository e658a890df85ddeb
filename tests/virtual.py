"""Virtual time in tests: the engine's clocks are the loop's."""

from __future__ import annotations

import asyncio
import types
from typing import Any

import pytest

from loom.testing.virtual import VirtualLoop

__all__ = ["Clock", "VirtualLoop", "virtual_time"]

_MODULES = (
    "engine.run.attempt",
    "engine.run.drive",
    "engine.run.owner",
    "engine.run.publisher",
    "engine.run.readers",
    "engine.run.runner",
    "engine.run.strangers",
    "engine.run.trim",
    "engine.declare.starts",
    "engine.follow.client",
    "engine.follow.unserved",
    "engine.run.worker",
    "engine.run.writer",
    "stores.memory.store",
)
"""Those that read clocks themselves."""


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
    clock: Any = types.SimpleNamespace(
        monotonic=now, time=lambda: 1_700_000_000.0 + now(), time_ns=lambda: round((1_700_000_000.0 + now()) * 1e9)
    )
    for module in _MODULES:
        monkeypatch.setattr(f"loom.{module}.time", clock)
    return now

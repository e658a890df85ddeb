"""The memory store: four ports in this process, gone with it. The fastest store, and the reference of the others.

No call suspends, except to wait.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Self

from loom.model import limits
from loom.model.ports import Durability

from .logs import MemoryLogs
from .queue import MemoryQueue
from .runs import MemoryRuns
from .workers import MemoryWorkers

MEMORY_BYTES = 1 << 30
"""What the store holds; then the oldest ended runs go, and with none left it is full."""


class MemoryStore:
    """The four ports in this process, on one event loop. An acknowledged append survives nothing but calls.

    Ended runs are dropped `retention` seconds after their end (None: never; a run's own comes first), by `sweep`. With
    `max_bytes` of payload stored the oldest ended runs go before their time; when there are none, adding raises
    `StoreFull`.
    """

    durability: Durability = "memory"
    waits = False

    def __init__(
        self,
        *,
        retention: float | None = limits.RETENTION,
        max_bytes: int = MEMORY_BYTES,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = lambda: time.time(),  # noqa: PLW0108 (looked up at each call)
    ) -> None:
        self.logs = MemoryLogs(clock, max_bytes)
        self.queue = MemoryQueue(clock, wall)
        self.runs = MemoryRuns(self.logs, self.queue, clock, wall, retention)
        self.workers = MemoryWorkers(wall)
        self.sweep = self.runs.sweep

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None: ...

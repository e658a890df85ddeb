"""A worker that was killed goes from the register after a while, by the store's wall clock."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from loom.model import limits
from loom.model.errors import UsageError
from loom.model.ports import Store
from loom.model.run import WorkerInfo
from loom.stores.memory import MemoryStore
from loom.stores.sqlite import SqliteStore
from loom.testing.clock import ManualClock

pytestmark = pytest.mark.anyio

MAKERS: dict[str, Callable[[ManualClock, Path], Store]] = {
    "memory": lambda wall, folder: MemoryStore(wall=wall),
    "sqlite": lambda wall, folder: SqliteStore(folder / "runs.db", wall=wall),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())
async def test_who_is_silent_is_forgotten(make: Callable[[ManualClock, Path], Store], tmp_path: Path) -> None:
    wall = ManualClock(1.7e9)
    async with make(wall, tmp_path) as store:
        for name in ("killed", "alive"):
            await store.workers.register(WorkerInfo(name=name, started=1.0))
        wall.advance(limits.WORKER_SEEN * 0.9)
        assert await store.workers.register(WorkerInfo(name="alive", started=1.0)) is False
        assert [info.name for info in await store.workers.list_workers()] == ["alive", "killed"]
        wall.advance(limits.WORKER_SEEN * 0.2)
        assert [info.name for info in await store.workers.list_workers()] == ["alive"]
        with pytest.raises(UsageError):
            await store.workers.request_drain("killed")

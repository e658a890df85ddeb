"""The registry of workers: information only."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from loom.model.errors import UsageError
from loom.model.ports import WorkerRegistry
from loom.model.run import WorkerInfo

from .kit import Suite

WORKER = WorkerInfo(
    name="w1", host="here", pid=7, queues=("a", "b"), concurrency=5, running=2, started=100.0, draining=False
)


class WorkerConformance(Suite):
    """Guarantees of the registry of workers."""

    async def test_workers_are_told_of_as_they_told_last(self, workers: WorkerRegistry) -> None:
        """By name."""
        assert await workers.list_workers() == []
        assert await workers.register(replace(WORKER, name="w2")) is False
        for running in (1, 2):
            assert await workers.register(replace(WORKER, running=running)) is False
        infos = await workers.list_workers()
        assert [replace(info, seen=0.0) for info in infos] == [WORKER, replace(WORKER, name="w2")]
        assert all(info.seen > 1e9 for info in infos)

    async def test_a_worker_that_ended_is_forgotten(self, workers: WorkerRegistry) -> None:
        """However often it says so."""
        await workers.register(WORKER)
        for _ in range(2):
            await workers.deregister("w1")
        assert await workers.list_workers() == []

    async def test_a_worker_is_asked_to_drain(self, workers: WorkerRegistry) -> None:
        """It hears of it each time that it attends, and is shown as draining."""
        await workers.register(WORKER)
        await workers.register(replace(WORKER, name="w2"))
        for _ in range(2):
            await workers.request_drain("w1")
        assert [info.draining for info in await workers.list_workers()] == [True, False]
        for _ in range(2):
            assert await workers.register(WORKER) is True
        assert await workers.register(replace(WORKER, name="w2")) is False

    async def test_a_worker_that_takes_anothers_name_was_asked_nothing(self, workers: WorkerRegistry) -> None:
        """It started at another time."""
        await workers.register(WORKER)
        await workers.request_drain("w1")
        assert await workers.register(replace(WORKER, started=200.0)) is False
        assert [info.draining for info in await workers.list_workers()] == [False]
        await workers.request_drain("w1")
        await workers.deregister("w1")
        assert await workers.register(replace(WORKER, started=200.0)) is False

    async def test_a_worker_that_is_not_there_cannot_be_asked(self, workers: WorkerRegistry) -> None:
        """Nor one that has ended."""
        await workers.register(WORKER)
        await workers.deregister("w1")
        with pytest.raises(UsageError) as caught:
            await workers.request_drain("w1")
        assert caught.value.code == "unknown_worker"

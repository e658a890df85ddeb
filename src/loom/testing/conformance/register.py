"""The workers' register: information only."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from loom.model.errors import UsageError
from loom.model.ports import Store
from loom.model.run import WorkerInfo

from .kit import Suite

WORKER = WorkerInfo(
    name="w1", host="here", pid=7, queues=("a", "b"), concurrency=5, running=2, started=100.0, draining=False
)


class RegisterConformance(Suite):
    """What every store tells of its workers."""

    async def test_workers_are_told_of_as_they_told_last(self, store: Store) -> None:
        """By name."""
        assert await store.workers() == []
        assert await store.attend(replace(WORKER, name="w2")) is False
        for running in (1, 2):
            assert await store.attend(replace(WORKER, running=running)) is False
        infos = await store.workers()
        assert [replace(info, seen=0.0) for info in infos] == [WORKER, replace(WORKER, name="w2")]
        assert all(info.seen > 1e9 for info in infos)

    async def test_a_worker_that_ended_is_forgotten(self, store: Store) -> None:
        """However often it says so."""
        await store.attend(WORKER)
        for _ in range(2):
            await store.dismiss("w1")
        assert await store.workers() == []

    async def test_a_worker_is_asked_to_drain(self, store: Store) -> None:
        """It hears of it each time that it attends, and is shown as draining."""
        await store.attend(WORKER)
        await store.attend(replace(WORKER, name="w2"))
        for _ in range(2):
            await store.ask_to_drain("w1")
        assert [info.draining for info in await store.workers()] == [True, False]
        for _ in range(2):
            assert await store.attend(WORKER) is True
        assert await store.attend(replace(WORKER, name="w2")) is False

    async def test_a_worker_that_takes_anothers_name_was_asked_nothing(self, store: Store) -> None:
        """It started at another time."""
        await store.attend(WORKER)
        await store.ask_to_drain("w1")
        assert await store.attend(replace(WORKER, started=200.0)) is False
        assert [info.draining for info in await store.workers()] == [False]
        await store.ask_to_drain("w1")
        await store.dismiss("w1")
        assert await store.attend(replace(WORKER, started=200.0)) is False

    async def test_a_worker_that_is_not_there_cannot_be_asked(self, store: Store) -> None:
        """Nor one that has ended."""
        await store.attend(WORKER)
        await store.dismiss("w1")
        with pytest.raises(UsageError) as caught:
            await store.ask_to_drain("w1")
        assert caught.value.code == "unknown_worker"

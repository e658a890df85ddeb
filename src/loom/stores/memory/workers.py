"""The registry of workers in memory."""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from loom.model import limits
from loom.model.errors import UsageError
from loom.model.run import WorkerInfo


class MemoryWorkers:
    """The `WorkerRegistry`."""

    def __init__(self, wall: Callable[[], float]) -> None:
        self._wall = wall
        self._infos: dict[str, WorkerInfo] = {}  # the one that registered last stands last
        self._asked: set[str] = set()

    async def register(self, info: WorkerInfo) -> bool:
        before = self._infos.pop(info.name, None)
        if before is not None and before.started != info.started:
            self._asked.discard(info.name)
        self._infos[info.name] = replace(info, seen=self._wall())
        self._forget_silent()
        return info.name in self._asked

    async def deregister(self, worker: str) -> None:
        self._infos.pop(worker, None)
        self._asked.discard(worker)

    async def list_workers(self) -> list[WorkerInfo]:
        self._forget_silent()
        listed = sorted(self._infos.items())
        return [replace(info, draining=info.draining or name in self._asked) for name, info in listed]

    async def request_drain(self, worker: str) -> None:
        self._forget_silent()
        if worker not in self._infos:
            raise UsageError(f"there is no worker {worker!r}", code="unknown_worker")
        self._asked.add(worker)

    def _forget_silent(self) -> None:
        before = self._wall() - limits.WORKER_SEEN
        while self._infos and (oldest := next(iter(self._infos.values()))).seen < before:
            del self._infos[oldest.name]
            self._asked.discard(oldest.name)

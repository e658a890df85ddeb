"""The workers' registry: the port, and what its calls do in a session."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from msgspec.structs import replace

from loom.model import limits
from loom.model.errors import UsageError
from loom.model.run import WorkerInfo
from loom.wire.json import encode

from . import sql
from .calls import Session
from .executor import Executor

__all__ = ["SqliteWorkers"]

_info = msgspec.json.Decoder(WorkerInfo)


class SqliteWorkers:
    """The `WorkerRegistry`. Workers that fell silent are forgotten by a sweep: nobody's beat looks at the others."""

    def __init__(self, executor: Executor, wall: Callable[[], float]) -> None:
        self._executor = executor
        self._wall = wall

    async def register(self, info: WorkerInfo) -> bool:
        return await self._executor.write(_register, info, self._wall())

    async def deregister(self, worker: str) -> None:
        await self._executor.write(_deregister, worker)

    async def list_workers(self) -> list[WorkerInfo]:
        return await self._executor.read(_list_workers, self._wall())

    async def request_drain(self, worker: str) -> None:
        await self._executor.write(_request_drain, worker, self._wall())


def _register(session: Session, info: WorkerInfo, now: float) -> bool:
    return bool(session.value(sql.REGISTER, info.name, info.started, now, encode(info)))


def _deregister(session: Session, worker: str) -> None:
    session.run(sql.DEREGISTER, worker)


def _list_workers(session: Session, now: float) -> list[WorkerInfo]:
    rows = session.all(sql.WORKERS, now - limits.WORKER_SEEN)
    infos = [(_info.decode(info), seen, bool(asked)) for info, seen, asked in rows]
    return [replace(info, seen=seen, draining=info.draining or asked) for info, seen, asked in infos]


def _request_drain(session: Session, worker: str, now: float) -> None:
    if not session.run(sql.REQUEST_DRAIN, worker, now - limits.WORKER_SEEN):
        raise UsageError(f"there is no worker {worker!r}", code="unknown_worker")

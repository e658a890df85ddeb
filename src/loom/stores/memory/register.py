"""The workers that attended lately."""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from loom.model import limits
from loom.model.errors import UsageError
from loom.model.run import WorkerInfo

__all__ = ["Register"]


class Register:
    """By name, what each worker last told; and who was asked to drain."""

    def __init__(self, wall: Callable[[], float]) -> None:
        self._wall = wall
        self._there: dict[str, WorkerInfo] = {}  # whoever told last stands last
        self._asked: set[str] = set()

    def attend(self, info: WorkerInfo) -> bool:
        """As `ports.Queue.attend`; so are the others of these names."""
        before = self._there.pop(info.name, None)
        if before is not None and before.started != info.started:
            self._asked.discard(info.name)
        self._there[info.name] = replace(info, seen=self._wall())
        self._forget()
        return info.name in self._asked

    def dismiss(self, worker: str) -> None:
        self._there.pop(worker, None)
        self._asked.discard(worker)

    def workers(self) -> list[WorkerInfo]:
        self._forget()
        return [
            replace(info, draining=info.draining or name in self._asked) for name, info in sorted(self._there.items())
        ]

    def ask_to_drain(self, worker: str) -> None:
        self._forget()
        if worker not in self._there:
            raise UsageError(f"there is no worker {worker!r}", code="unknown_worker")
        self._asked.add(worker)

    def _forget(self) -> None:
        before = self._wall() - limits.WORKER_SEEN
        while self._there and (oldest := next(iter(self._there.values()))).seen < before:
            self.dismiss(oldest.name)

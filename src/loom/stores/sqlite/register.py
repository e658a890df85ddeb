"""The workers' register: what its calls do in a session. Information only."""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from loom.model import limits
from loom.model.errors import UsageError
from loom.model.run import WorkerInfo
from loom.wire.json import encode

from . import sql
from .calls import Session

__all__ = ["ask_to_drain", "attend", "dismiss", "workers"]

_info = msgspec.json.Decoder(WorkerInfo)


def attend(session: Session, info: WorkerInfo, now: float) -> bool:
    """Those that fell silent are forgotten by a sweep: nobody's beat looks at the others."""
    return bool(session.value(sql.ATTEND, info.name, info.started, now, encode(info)))


def dismiss(session: Session, worker: str) -> None:
    session.run(sql.DISMISS, worker)


def workers(session: Session, now: float) -> list[WorkerInfo]:
    rows = session.all(sql.WORKERS, now - limits.WORKER_SEEN)
    infos = [(_info.decode(info), seen, bool(asked)) for info, seen, asked in rows]
    return [replace(info, seen=seen, draining=info.draining or asked) for info, seen, asked in infos]


def ask_to_drain(session: Session, worker: str, now: float) -> None:
    if not session.run(sql.ASK_TO_DRAIN, worker, now - limits.WORKER_SEEN):
        raise UsageError(f"there is no worker {worker!r}", code="unknown_worker")

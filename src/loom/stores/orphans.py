"""Open runs that no queue holds: whether nothing has happened in them for too long, and how such a one ends."""

from __future__ import annotations

from loom.model import limits
from loom.model.chunk import Batch, Chunk
from loom.model.errors import ErrorInfo, RemoteProtocolError
from loom.model.ports import Commit, closing
from loom.wire.json import decode_batch, encode

__all__ = ["ending_batch", "is_idle"]


def is_idle(last: Batch | None, now: float) -> bool:
    """Whether the last chunk of a run is older than `limits.IDLE_OPEN`, in Unix seconds. A run that has said nothing
    is not: to run it late loses nothing."""
    try:
        said = decode_batch(last)[-1].time if last is not None else 0.0
    except RemoteProtocolError:  # damaged: it is told by who claims it
        return False
    return 0.0 < said < now - limits.IDLE_OPEN


def ending_batch(epoch: int, tail: int, now: float) -> tuple[Batch, Commit]:
    """The batch behind chunk `tail` that ends such a run, and its commit."""
    info = ErrorInfo("run_lost", f"the run was lost: nothing had happened in it for {limits.IDLE_OPEN / 86400:g} days")
    chunk = Chunk("error", None, None, info, None, now)
    return Batch(epoch, tail + 1, tail + 1, encode(chunk) + b"\n"), closing(chunk)

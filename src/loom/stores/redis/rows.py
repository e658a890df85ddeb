"""What Redis holds of a run, as values: read with care, for what was damaged is told by the run that it belongs to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from loom.model.chunk import Batch
from loom.model.errors import RemoteProtocolError
from loom.model.run import Head
from loom.stores.stored import damaged, error_of, has_its_lines, join
from loom.wire.json import ending_of

__all__ = ["LISTED", "batches_of", "epochs_of", "head_of", "number_of"]

LISTED = ("meta", "epochs", "first", "tail", "ended", "state", "error", "started", "ended_at", "beat")
"""What a list shows of a head: neither its input nor its result."""


def epochs_of(run: str, text: bytes) -> tuple[tuple[int, int], ...]:
    """The head's list of epochs. Raises `Damaged`."""
    try:
        return tuple((int(epoch), int(first)) for epoch, _, first in (each.partition(b":") for each in text.split()))
    except ValueError as error:
        raise damaged(run, "of its list of epochs", error) from None


def number_of(run: str, text: bytes | None) -> int:
    """One of a head's numbers. Raises `Damaged`."""
    try:
        return int(text or b"")
    except ValueError as error:
        raise damaged(run, "of its head", error) from None


def head_of(run: str, fields: dict[bytes, bytes | None], last: bytes | None = None) -> Head:
    """A head, of its fields; with the lines of its `last` batch its result too. Raises `Damaged`."""
    ended = fields[b"ended"] == b"1"
    try:
        return Head(
            meta=join(run, fields[b"meta"] or b"", fields.get(b"input")),
            epochs=epochs_of(run, fields[b"epochs"] or b""),
            first=int(fields[b"first"] or 1),
            tail=int(fields[b"tail"] or 0),
            ended=ended,
            state=(fields[b"state"] or b"").decode(),  # type: ignore[arg-type]
            error=error_of(run, fields[b"error"] or None),
            result=ending_of(Batch(0, 1, 1, last))[1] if ended and last else None,
            started=_time(fields[b"started"]),
            ended_at=_time(fields[b"ended_at"]),
            beat=int(fields[b"beat"] or 0),
            heard=_time(fields.get(b"heard")),
        )
    except (RemoteProtocolError, ValueError) as error:
        raise damaged(run, "of its head", error) from None


def batches_of(run: str, entries: Iterable[Any], *, inbox: bool) -> Sequence[Batch]:
    """The batches that a stream's entries are. Raises `Damaged`."""
    try:
        return [_batch(*entry, inbox=inbox) for entry in entries]
    except (ValueError, TypeError, IndexError) as error:
        raise damaged(run, "of its log", error) from None


def _batch(id: bytes, fields: list[bytes], *, inbox: bool) -> Batch:
    epoch, _, last = id.partition(b"-")
    batch = Batch(int(epoch), int(last if inbox else fields[1]), int(last), fields[-1])
    if not has_its_lines(batch):
        raise ValueError(f"other lines than of {batch.first} to {batch.last}")
    return batch


def _time(text: bytes | None) -> float | None:
    return None if not text else float(text)

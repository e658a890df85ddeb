"""Values of what Redis holds, read with care: damage is reported with the log or run that it belongs to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from loom.model.chunk import Batch
from loom.model.errors import RemoteProtocolError
from loom.model.ports import JSON_LINES, LogInfo, LogSpec
from loom.model.run import Head, Mark
from loom.stores.stored import damaged, error_of, has_its_lines, join
from loom.wire.json import ending_of

__all__ = ["batches_of", "epochs_of", "head_of", "info_of", "mark_of", "number_of", "pairs", "spec_args"]

_LIGHT = (b"meta", b"state", b"error", b"started", b"ended_at", b"beat")


def spec_args(spec: LogSpec, epoch: int) -> tuple[str | int, ...]:
    """A spec as `functions.lua` takes it: kind, type, records, bytes; and the epoch of a log of many writers."""
    many = spec.policy == "many"
    kind = ("m" if many else "s") + ("l" if spec.content_type == JSON_LINES else "o")
    bounds = ("" if bound is None else bound for bound in (spec.max_records, spec.max_bytes))
    return kind, spec.content_type, *bounds, epoch if many else -1


def info_of(log: str, facts: Sequence[bytes]) -> LogInfo:
    """A log's facts. Raises `Damaged`."""
    kind, type, records, size, epochs, first, tail, ended, written, forgotten = facts
    spec = LogSpec(
        policy="many" if kind.startswith(b"m") else "single",
        content_type=type.decode(),
        max_records=int(records) if records else None,
        max_bytes=int(size) if size else None,
    )
    return LogInfo(
        spec=spec,
        epochs=epochs_of(log, epochs),
        first=number_of(log, first),
        tail=number_of(log, tail),
        ended=ended == b"1",
        size=number_of(log, written) - number_of(log, forgotten),
    )


def epochs_of(log: str, text: bytes) -> tuple[tuple[int, int], ...]:
    """The list of epochs. Raises `Damaged`."""
    try:
        return tuple((int(epoch), int(first)) for epoch, _, first in (each.partition(b":") for each in text.split()))
    except ValueError as error:
        raise damaged(log, "of its list of epochs", error) from None


def number_of(log: str, text: bytes | None) -> int:
    """One of a log's numbers. Raises `Damaged`."""
    try:
        return int(text or b"")
    except ValueError as error:
        raise damaged(log, "of its head", error) from None


def head_of(run: str, record: Sequence[bytes | None], log: Sequence[bytes | None], last: bytes | None = None) -> Head:
    """A head, of all the record's pairs or of the light ones' values; with the lines of its `last` batch its result
    too. Raises `Damaged`."""
    full = last is not None
    fields = dict(pairs(record) if full else zip(_LIGHT, record, strict=True))
    epochs, first, tail, ended = log
    try:
        return Head(
            meta=join(run, fields.get(b"meta") or b"", fields.get(b"input")),
            epochs=epochs_of(run, epochs or b""),
            first=int(first or 1),
            tail=int(tail or 0),
            ended=ended == b"1",
            state=(fields.get(b"state") or b"").decode(),  # type: ignore[arg-type]
            error=error_of(run, fields.get(b"error") or None),
            result=ending_of(Batch(0, 1, 1, last))[1] if ended == b"1" and last else None,
            started=_time(fields.get(b"started")),
            ended_at=_time(fields.get(b"ended_at")),
            beat=int(fields.get(b"beat") or 0),
            heard=_time(fields.get(b"heard")),
        )
    except (RemoteProtocolError, ValueError) as error:
        raise damaged(run, "of its head", error) from None


def batches_of(log: str, entries: Iterable[Any], *, lines: bool) -> Sequence[Batch]:
    """The batches that a stream's entries are. Raises `Damaged`."""
    try:
        return [_batch(*entry, lines=lines) for entry in entries]
    except (ValueError, TypeError, IndexError) as error:
        raise damaged(log, "of its log", error) from None


def _batch(id: bytes, fields: list[bytes], *, lines: bool) -> Batch:
    epoch, _, last = id.partition(b"-")
    batch = Batch(int(epoch), int(fields[1]), int(last), fields[5])
    if not (has_its_lines(batch) if lines else batch.first == batch.last):
        raise ValueError(f"other records than {batch.first} to {batch.last}")
    return batch


def mark_of(reader: bytes, text: bytes) -> Mark:
    """A reader's position."""
    seq, _, beat = text.partition(b" ")
    return Mark(reader.decode(), int(seq), int(beat))


def pairs(flat: Sequence[Any]) -> Iterable[tuple[Any, Any]]:
    """A hash's fields and values, as HGETALL gives them."""
    return zip(flat[::2], flat[1::2], strict=True)


def _time(text: bytes | None) -> float | None:
    return None if not text else float(text)

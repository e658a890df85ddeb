"""What rows hold of a log and of a run's end, read with care: what was damaged is told by its run."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import msgspec

from loom.model.chunk import Batch
from loom.model.errors import Damaged, RemoteProtocolError
from loom.model.ports import LogSpec
from loom.model.run import run_of
from loom.stores.stored import FAULTS, damaged, read
from loom.wire.json import ending_of

__all__ = ["batches_of", "epochs_of", "result_of", "spec_of"]

_spec = msgspec.json.Decoder(LogSpec)
_epochs = msgspec.json.Decoder(tuple[tuple[int, int], ...])
_line = msgspec.json.Decoder(msgspec.Raw)
_places = msgspec.json.Decoder(list[tuple[int, int]])


def spec_of(log: str, data: bytes) -> LogSpec:
    """Raises `Damaged`."""
    return read(_spec, data, run_of(log), "log's spec")


def epochs_of(log: str, data: bytes) -> tuple[tuple[int, int], ...]:
    """The log's list of epochs. Raises `Damaged`."""
    return read(_epochs, data, run_of(log), "list of epochs")


def result_of(run: str, seq: int, payload: bytes | None) -> msgspec.Raw | None:
    """The result that the last batch tells, chunk `seq` being the last. Raises `Damaged`."""
    try:
        return None if payload is None else ending_of(Batch(0, 1, 1, payload))[1]
    except RemoteProtocolError as error:
        raise _damaged(run, seq, error) from None


def batches_of(log: str, epoch: int, first: int, stored: bytes, *, opaque: bool) -> Sequence[Batch]:
    """Batches as `sql.READ` joined them. Raises `Damaged`."""
    return _records(epoch, stored) if opaque else (_lines(log, epoch, first, stored),)


def _records(epoch: int, stored: bytes) -> list[Batch]:
    """Behind the payloads stand their seqs and sizes."""
    records = _places.decode(stored[stored.rfind(b"[[") :])
    ends = itertools.accumulate(size for _, size in records)
    return [Batch(epoch, seq, seq, stored[end - size : end]) for (seq, size), end in zip(records, ends, strict=True)]


def _lines(log: str, epoch: int, first: int, stored: bytes) -> Batch:
    """Behind the last line stands the seq that it has to be. Each line is seen to be JSON: what is passed on from here
    is not decoded by everybody."""
    end = stored.rfind(b"\n") + 1
    payload = stored[:end]
    try:
        last, lines = int(stored[end:]), len(_line.decode_lines(payload))
    except (*FAULTS, ValueError) as error:
        raise _damaged(log, first + _sound(payload), error) from None
    if last != first + lines - 1:
        raise _damaged(log, first, f"{lines} lines for {first} to {last}")
    return Batch(epoch, first, last, payload)


def _sound(payload: bytes) -> int:
    """How many lines there are before the first that cannot be read."""
    for count, line in enumerate(payload.split(b"\n")):
        try:
            _line.decode(line)
        except FAULTS:
            return count
    return 0


def _damaged(log: str, seq: int, why: object) -> Damaged:
    return damaged(run_of(log), f"at {seq}", why, seq=seq)

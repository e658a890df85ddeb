"""What stores hold of a run as JSON, read with care: what was damaged is told by the run that it belongs to.

The input of a run stands apart from what else is known of its start, so that lists leave it where it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import msgspec
from msgspec.structs import replace

from loom.model.chunk import Batch
from loom.model.errors import Damaged, ErrorInfo
from loom.model.run import NO_INPUT, Meta
from loom.wire.json import encode

__all__ = ["FAULTS", "check_whole", "damaged", "error_of", "has_its_lines", "join", "read", "split"]

T = TypeVar("T")

FAULTS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What reading damaged JSON raises."""

_meta = msgspec.json.Decoder(Meta)
_error = msgspec.json.Decoder(ErrorInfo)


def split(meta: Meta) -> tuple[bytes, bytes]:
    """What is stored of a start, and of its input."""
    return encode(replace(meta, input=NO_INPUT)), bytes(meta.input)


def join(run: str, meta: bytes | None, input: bytes | None) -> Meta:
    """What `split` took apart; without an input that of a run that has none. Raises `Damaged`."""
    rest = read(_meta, meta, run, "start")
    return rest if input is None else replace(rest, input=msgspec.Raw(input))


def error_of(run: str, data: bytes | None) -> ErrorInfo | None:
    """The error it ended with. Raises `Damaged`."""
    return None if data is None else read(_error, data, run, "error")


def read(decoder: msgspec.json.Decoder[T], data: bytes | None, run: str, what: str) -> T:
    """What was stored as JSON. Raises `Damaged`."""
    try:
        return decoder.decode(data or b"")
    except FAULTS as error:
        raise damaged(run, f"of its {what}", error) from None


def check_whole(run: str, batches: Sequence[Batch], start: int, tail: int) -> None:
    """Raises `Damaged` when one is missing from `start` on: a server that evicts keys may have taken it."""
    due = start
    for batch in batches:
        if not batch.first <= due <= batch.last:
            break
        due = batch.last + 1
    else:
        if batches or tail < start:
            return
    raise damaged(run, "of its log", f"chunk {due} is missing")


def has_its_lines(batch: Batch) -> bool:
    """True if it holds as many whole lines as chunks: those behind it would be read under other numbers."""
    return batch.payload.count(b"\n") == len(batch) > 0 and batch.payload.endswith(b"\n")


def damaged(run: str, which: str, why: object, **details: object) -> Damaged:
    """The error that says which part of what is stored is damaged: `of its head`, `at 7`."""
    return Damaged(f"run {run!r}: what is stored {which} is damaged: {why}", details={"run": run, **details})

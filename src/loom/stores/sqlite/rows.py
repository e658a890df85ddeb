"""What rows hold of a run's log and head, read with care: what was damaged is told by the run that it belongs to."""

from __future__ import annotations

import msgspec

from loom.model.chunk import Batch
from loom.model.errors import Damaged, RemoteProtocolError
from loom.stores.stored import FAULTS, damaged, read
from loom.wire.json import ending_of

__all__ = ["batch_of", "epochs_of", "result_of"]


class _Line(msgspec.Struct):
    """As much of a chunk as every chunk has."""

    type: str


_epochs = msgspec.json.Decoder(tuple[tuple[int, int], ...])
_chunk = msgspec.json.Decoder(_Line)
_message = msgspec.json.Decoder(msgspec.Raw)


def epochs_of(run: str, data: bytes) -> tuple[tuple[int, int], ...]:
    """The head's list of epochs. Raises `Damaged`."""
    return read(_epochs, data, run, "list of epochs")


def result_of(run: str, seq: int, payload: bytes | None) -> msgspec.Raw | None:
    """The result that the last batch tells, chunk `seq` being the last. Raises `Damaged`."""
    try:
        return None if payload is None else ending_of(Batch(0, 1, 1, payload))[1]
    except RemoteProtocolError as error:
        raise _damaged(run, seq, error) from None


def batch_of(run: str, epoch: int, first: int, stored: bytes, *, inbox: bool) -> Batch:
    """Batches that were joined, and behind their last line the seq that it has to be. Raises `Damaged`.

    Each line is seen to be one chunk, or message: what is passed on from here is not decoded by everybody.
    """
    end = stored.rfind(b"\n") + 1
    payload = stored[:end]
    try:
        last, lines = int(stored[end:]), len((_message if inbox else _chunk).decode_lines(payload))
    except (*FAULTS, ValueError) as error:
        raise _damaged(run, first + _sound(payload, inbox=inbox), error) from None
    if last != first + lines - 1:
        raise _damaged(run, first, f"{lines} lines for {first} to {last}")
    return Batch(epoch, first, last, payload)


def _sound(payload: bytes, *, inbox: bool) -> int:
    """How many lines there are before the first that cannot be read."""
    decoder = _message if inbox else _chunk
    for count, line in enumerate(payload.split(b"\n")):
        try:
            decoder.decode(line)
        except FAULTS:
            return count
    return 0


def _damaged(run: str, seq: int, why: object) -> Damaged:
    return damaged(run, f"at {seq}", why, seq=seq)

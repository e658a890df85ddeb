"""What rows hold as JSON, read with care: what was damaged is told by the run that it belongs to.

The input of a run stands apart from what else is known of its start, so that lists leave it in the file.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec
from msgspec.structs import replace

from loom.model.chunk import Batch
from loom.model.errors import Damaged, ErrorInfo, RemoteProtocolError
from loom.model.run import NO_INPUT, Meta
from loom.wire.json import encode, ending_of

__all__ = ["batch_of", "epochs_of", "error_of", "join", "result_of", "split"]

T = TypeVar("T")

_FAULTS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class _Line(msgspec.Struct):
    """As much of a chunk as every chunk has."""

    type: str


_meta = msgspec.json.Decoder(Meta)
_epochs = msgspec.json.Decoder(tuple[tuple[int, int], ...])
_error = msgspec.json.Decoder(ErrorInfo)
_chunk = msgspec.json.Decoder(_Line)
_message = msgspec.json.Decoder(msgspec.Raw)


def split(meta: Meta) -> tuple[bytes, bytes]:
    """What the columns `meta` and `input` hold."""
    return encode(replace(meta, input=NO_INPUT)), bytes(meta.input)


def join(run: str, meta: bytes, input: bytes | None) -> Meta:
    """What `split` took apart; without an input that of a run that has none. Raises `Damaged`."""
    rest = _read(_meta, meta, run, "start")
    return rest if input is None else replace(rest, input=msgspec.Raw(input))


def epochs_of(run: str, data: bytes) -> tuple[tuple[int, int], ...]:
    """The head's list of epochs. Raises `Damaged`."""
    return _read(_epochs, data, run, "list of epochs")


def error_of(run: str, data: bytes | None) -> ErrorInfo | None:
    """The error it ended with. Raises `Damaged`."""
    return None if data is None else _read(_error, data, run, "error")


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
    except (*_FAULTS, ValueError) as error:
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
        except _FAULTS:
            return count
    return 0


def _read(decoder: msgspec.json.Decoder[T], data: bytes, run: str, what: str) -> T:
    try:
        return decoder.decode(data)
    except _FAULTS as error:
        raise Damaged(f"run {run!r}: what is stored of its {what} is damaged: {error}", details={"run": run}) from None


def _damaged(run: str, seq: int, why: object) -> Damaged:
    return Damaged(f"run {run!r}: what is stored at {seq} is damaged: {why}", details={"run": run, "seq": seq})

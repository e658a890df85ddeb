"""A run's stored chunks as dialects read them, and which of them later attempts took back."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import msgspec

from loom.model.chunk import Batch, Chunk
from loom.model.errors import ErrorInfo, RemoteProtocolError
from loom.model.parts import Usage
from loom.model.retraction import MARKERS, Fold, Retraction

__all__ = ["ChunkFields", "RetractedRanges", "marker_of", "read_line"]


class ChunkFields(msgspec.Struct, gc=False):
    """The fields of a stored chunk that a dialect looks at."""

    type: str
    data: msgspec.Raw = msgspec.Raw(b"null")
    error: ErrorInfo | None = None
    source: str | None = None
    usage: Usage | None = None


_line = msgspec.json.Decoder(ChunkFields)
_any = msgspec.json.Decoder()
_MARKERS = tuple(b'{"type":"%b"' % type.encode() for type in MARKERS)


def read_line(line: bytes) -> ChunkFields:
    """Raises `RemoteProtocolError` for what is no chunk."""
    try:
        return _line.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RemoteProtocolError(f"not a chunk: {error}") from None


def marker_of(seq: int, line: ChunkFields) -> Chunk[Any] | None:
    """The chunk for `Fold.feed`, if the line is one of its markers."""
    if line.type not in MARKERS:
        return None
    return Chunk(line.type, _any.decode(line.data), source=line.source, seq=seq)


class RetractedRanges:
    """The chunks that later attempts took back, of a log that is read before it is sent."""

    def __init__(self) -> None:
        self._fold = Fold()
        self._retractions: list[Retraction] = []

    def feed(self, batch: Batch) -> None:
        """Look at these chunks."""
        for seq, line in enumerate(batch.lines(), batch.first):
            if line.startswith(_MARKERS) and (marker := marker_of(seq, read_line(line))) is not None:
                retraction = self._fold.feed(marker)
                if retraction is not None:
                    self._retractions.append(retraction)

    def covers(self, seq: int, line: bytes) -> bool:
        """True if the chunk at `seq`, whose JSON this is, was taken back."""
        found = [each for each in self._retractions if each.after < seq < each.before]
        if not found or any(each.step is None for each in found):
            return bool(found)
        source = read_line(line).source
        return any(each.covers(seq, source) for each in found)

    def surviving(self, batch: Batch) -> list[Batch]:
        """The chunks of `batch` that stand, in batches of consecutive ones."""
        standing = [not self.covers(seq, line) for seq, line in enumerate(batch.lines(), batch.first)]
        found, first = list[Batch](), batch.first
        for stands, group in groupby(standing):
            count = len(list(group))
            if stands:
                found.append(batch.slice(first, first + count - 1))
            first += count
        return found

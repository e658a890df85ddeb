"""Earlier output that still stands, kept encoded: in memory as far as its process has room for it, else in a file."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from itertools import groupby
from typing import NamedTuple

from msgspec.structs import replace

from loom.model.chunk import Batch
from loom.model.retraction import Retraction
from loom.wire.json import decode_batch

__all__ = ["Room", "Standing"]

HISTORY_BYTES = 64 << 20
"""What the attempts of one worker hold in memory of what was said before them; the rest lies in temporary files. A
hundred that continue at once may find 25 GB; but most find a few kB."""


class Room:
    """The bytes of earlier output that the attempts of one process may hold in memory together."""

    def __init__(self, size: int | None = None) -> None:
        self.left = HISTORY_BYTES if size is None else size

    def take(self, size: int) -> bool:
        """True, and so much less is left; or False."""
        fits = size <= self.left
        self.left -= size if fits else 0
        return fits

    def give_back(self, size: int) -> None:
        self.left += size


class Standing:
    """Batches in order. Appending and reading raise `OSError` when the disk for temporary files is full or broken."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._kept: list[_Kept] = []
        self._taken = 0
        self._file: _File | None = None
        self._end = 0

    def __len__(self) -> int:
        return len(self._kept)

    def __getitem__(self, index: int) -> Batch:
        kept = self._kept[index]
        if kept.place is None:
            return kept.batch
        assert self._file is not None
        return replace(kept.batch, payload=self._file.read(kept.size, kept.place))

    def __iter__(self) -> Iterator[Batch]:
        return map(self.__getitem__, range(len(self)))

    @property
    def counts(self) -> list[int]:
        """The number of chunks in each batch; none is read for it."""
        return [len(kept.batch) for kept in self._kept]

    @property
    def in_file(self) -> int:
        """The bytes that lie in the file."""
        return sum(kept.size for kept in self._kept if kept.place is not None)

    def append(self, batch: Batch) -> None:
        size = len(batch.payload)
        if self._room.take(size):
            self._taken += size
            self._kept.append(_Kept(batch, size, None))
            return
        if self._file is None:
            self._file = _File()
        self._file.write(batch.payload, self._end)
        self._kept.append(_Kept(replace(batch, payload=b""), size, self._end))
        self._end += size

    def retract(self, retraction: Retraction) -> None:
        """Take back what it covers. Of a step's, batches are decoded for their chunks' sources."""
        kept: list[Batch] = []
        while self._kept and self._kept[-1].batch.last > retraction.after:
            kept += reversed(_left_of(self[-1], retraction))
            self._pop()
        for batch in reversed(kept):
            self.append(batch)

    def _pop(self) -> None:
        kept = self._kept.pop()
        if kept.place is None:
            self._taken -= kept.size
            self._room.give_back(kept.size)
        else:
            self._end = kept.place

    def leave(self) -> None:
        """Give the room to others. It can still be read; nothing more is appended."""
        taken, self._taken = self._taken, 0
        self._room.give_back(taken)


def _left_of(batch: Batch, retraction: Retraction) -> list[Batch]:
    """The parts of a batch that still stand, in order."""
    if retraction.step is None:
        stands = [not retraction.covers(seq) for seq in range(batch.first, batch.last + 1)]
    else:
        stands = [not retraction.covers(chunk.seq, chunk.source) for chunk in decode_batch(batch)]
    parts, seq = [], batch.first
    for kept, chunks in groupby(stands):
        count = len(list(chunks))
        if kept:
            parts.append((seq, seq + count - 1))
        seq += count
    return [batch.slice(first, last) for first, last in parts]


class _Kept(NamedTuple):
    """A batch and its size; with a place it lies in the file, and is without its payload here."""

    batch: Batch
    size: int
    place: int | None


class _File:
    """A file without a name: nothing is left of it once it is let go, or the process has died."""

    _number = -1

    def __init__(self) -> None:
        with tempfile.TemporaryFile() as file:
            self._number = os.dup(file.fileno())

    def write(self, data: bytes, place: int) -> None:
        rest = memoryview(data)
        while rest:
            written = os.pwrite(self._number, rest, place)
            rest, place = rest[written:], place + written

    def read(self, size: int, place: int) -> bytes:
        data = b""
        while len(data) < size:
            some = os.pread(self._number, size - len(data), place + len(data))
            if not some:
                raise OSError(f"{size} bytes at {place} of a temporary file are gone")
            data += some
        return data

    def __del__(self) -> None:
        if self._number >= 0:
            os.close(self._number)

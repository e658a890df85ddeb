"""Counting words as they are read: in blocks, of any file, whatever its encoding."""

from __future__ import annotations

import codecs
import io
import os
import stat
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import msgspec

from loom.model.chunk import Progress, Result
from loom.model.errors import InvalidInput

__all__ = ["Count", "Counter", "count_words"]

BLOCK_BYTES = 1 << 20
"""What is held of a file at a time."""

_STEPS = 200
"""Progress is told about this often, but at least every 64 blocks."""


class Count(msgspec.Struct, frozen=True):
    """What stands in a file (or in the text that was given, named ``-``): as `wc` counts it."""

    name: str
    lines: int
    words: int
    bytes: int


class Counter:
    """Counts lines (line feeds), words (what white space parts, Unicode's included) and bytes, fed in any pieces.

    What is not UTF-8 counts as one character or more of a word, never as white space.
    """

    def __init__(self) -> None:
        self.lines = self.words = self.bytes = 0
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._inside = False  # a word reaches to the end of what was fed

    def feed(self, block: bytes) -> None:
        self.bytes += len(block)
        self.lines += block.count(b"\n")
        self._take(self._decode(block))

    def _take(self, text: str) -> None:
        if not text:
            return
        self.words += len(text.split())
        if self._inside and not text[0].isspace():
            self.words -= 1
        self._inside = not text[-1].isspace()

    def count(self, name: str) -> Count:
        """What was counted. Nothing can be fed afterwards."""
        self._take(self._decode(b"", True))
        return Count(name, self.lines, self.words, self.bytes)


def count_words(
    source: Sequence[str] | str, *, below: Path | None = None
) -> Iterator[Count | Progress | Result[Count]]:
    """A `Count` for each file (for a text: one), with the bytes done in between as `Progress`; the total as result.

    `below`: the folder that all files must lie in, links followed, and that paths are relative to. Raises
    `InvalidInput` naming the path, before anything is counted, for one that is no readable file, or lies elsewhere.
    """
    if isinstance(source, str):
        text = source.encode("utf-8", "replace")
        sizes = [len(text)]
        files: Iterator[tuple[str, BinaryIO]] = iter([("-", io.BytesIO(text))])
    else:
        found = [_find(path, place, below) for place, path in enumerate(source)]
        sizes = [_size(path, place, real) for place, (path, real) in enumerate(zip(source, found, strict=True))]
        files = ((path, _open(real)) for path, real in zip(source, found, strict=True))
    total = Count("total", 0, 0, 0)
    meter = _Meter(sum(sizes))
    for name, file in files:
        with file:
            count = yield from _count(name, file, meter)
        yield count
        total = _sum(total, count)
    yield Result(total)


def _count(name: str, file: BinaryIO, meter: _Meter) -> Generator[Progress, None, Count]:
    counter = Counter()
    while block := file.read(BLOCK_BYTES):
        counter.feed(block)
        if (progress := meter.add(len(block), name)) is not None:
            yield progress
    return counter.count(name)


class _Meter:
    """How many bytes are done, told in steps."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._done = self._told = 0
        self._step = min(total // _STEPS, 64 * BLOCK_BYTES)

    def add(self, size: int, name: str) -> Progress | None:
        self._done += size
        if self._done - self._told < self._step:
            return None
        self._told = self._done
        return Progress(self._done, max(self._total, self._done), name)  # a file may grow meanwhile


def _find(path: str, place: int, below: Path | None) -> str:
    """The path to open. What lies elsewhere is refused unseen: whether it is there is told to nobody."""
    if below is None:
        return path
    folder = os.path.realpath(below)
    try:
        real = os.path.realpath(os.path.join(folder, path))
    except (OSError, ValueError) as error:  # a path with NUL, or too long
        raise _unreadable(path, place, getattr(error, "strerror", None) or error) from None
    if os.path.commonpath([folder, real]) != folder:
        raise _unreadable(path, place, "outside the folder whose files may be read")
    return real


def _size(path: str, place: int, real: str) -> int:
    try:
        status = os.stat(real)
        if not stat.S_ISREG(status.st_mode):
            raise _unreadable(path, place, "not a file")
        with _open(real):
            return status.st_size
    except (OSError, ValueError) as error:  # ValueError: a path with NUL
        raise _unreadable(path, place, getattr(error, "strerror", None) or error) from None


def _unreadable(path: str, place: int, why: object) -> InvalidInput:
    return InvalidInput(f"source[{place}]: {why}: {path!r}", details={"field": f"source[{place}]"})


def _open(path: str) -> BinaryIO:
    return open(path, "rb", buffering=0)


def _sum(one: Count, other: Count) -> Count:
    return Count(one.name, one.lines + other.lines, one.words + other.words, one.bytes + other.bytes)

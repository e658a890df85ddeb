"""Cursors and epochs: where a reader is, and which writer's history it read."""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from .root_error import UsageError

__all__ = ["EPOCH_DIGITS", "Cursor", "attempt_of", "cursor_at", "make_epoch"]

EPOCH_DIGITS = 10**8
"""An epoch is attempt x 10^8 + eight random digits: larger with each attempt, the same twice with probability 10^-8."""

_TEXT = re.compile(r"(0|[1-9][0-9]{0,17})-([1-9][0-9]{0,17})", re.ASCII)


class Cursor(msgspec.Struct, frozen=True, gc=False):
    """ "After chunk `seq` of this log, as `epoch` wrote it". To callers an opaque token: `str` and `parse`."""

    epoch: int
    seq: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.seq}"

    @classmethod
    def parse(cls, text: str, field: str = "after") -> Cursor:
        """The cursor whose text form this is. Raises `UsageError` naming `field` for anything else."""
        match = _TEXT.fullmatch(text)
        if match is None:
            message = f"{field}: not a cursor: {text[:80]!r} (expected <epoch>-<seq>)"
            raise UsageError(message, details={"field": field})
        return cls(int(match[1]), int(match[2]))


def make_epoch(attempt: int, random_digits: int) -> int:
    """The epoch of an attempt (0: ended before any)."""
    return attempt * EPOCH_DIGITS + random_digits % EPOCH_DIGITS


def attempt_of(epoch: int) -> int:
    """The attempt that an epoch belongs to."""
    return epoch // EPOCH_DIGITS


def cursor_at(epochs: Sequence[tuple[int, int]], seq: int) -> Cursor | None:
    """The cursor behind chunk `seq` (None for 0, the beginning) of a log whose head lists (epoch, its first seq)."""
    if seq < 1:
        return None
    return Cursor(next(epoch for epoch, first in reversed(epochs) if first <= seq), seq)

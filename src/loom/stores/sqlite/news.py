"""What changed in the file, for who watches: found out by looking, told by name."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from loom.model.ports import Notice

from . import schema, sql
from .calls import Session

__all__ = ["LOOK_ROWS", "QUEUE", "Changes", "News", "Unseen"]

QUEUE = ""
"""The topic of who waits for a claim; the other topics are logs."""

LOOK_ROWS = 1000
"""Changes that are looked at one by one; beyond it whoever watches anything is told to look."""

LOOK_RANGES = 100
"""Stretches of others' changes between our own that are kept apart until somebody looks."""

_changes = msgspec.json.Decoder(list[tuple[int, str]])
_names = msgspec.json.Decoder(list[str])


class Unseen:
    """Which ids of a growing table were not looked at yet. Ids only grow."""

    def __init__(self, upto: int) -> None:
        self._upto = upto
        self._ranges: list[tuple[int, int]] = []

    def own(self, first: int, last: int) -> None:
        """These are ours: whatever lies between them and what was known is others'."""
        self.grown(first - 1)
        self._upto = max(self._upto, last)

    def grown(self, upto: int) -> None:
        """The table reaches to `upto`: what was not known is others'."""
        if upto > self._upto:
            self._ranges.append((self._upto + 1, upto))
            self._upto = upto
            if len(self._ranges) > LOOK_RANGES:  # nobody looks: one range over all of them will do
                self._ranges = [(self._ranges[0][0], upto)]

    def __len__(self) -> int:
        return sum(last - first + 1 for first, last in self._ranges)

    def take(self) -> list[tuple[int, int]]:
        """The ranges to look at now."""
        ranges, self._ranges = self._ranges, []
        return ranges


News = list[tuple[str, Notice]]


class Changes:
    """Notices what was committed since it last looked: by other connections, and in `change` by ours too."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._version = session.value(sql.DATA_VERSION)
        batches, changes = self._newest()
        self.batches = Unseen(batches)
        self._changes = Unseen(changes)

    def look(self, *, ours: bool) -> News | None:
        """What to tell; None: tell everybody. `ours`: our own commits may have changed more than batches."""
        version = self._session.value(sql.DATA_VERSION)
        if version != self._version or ours:
            self._version = version
            batches, changes = self._newest()
            self.batches.grown(batches)
            self._changes.grown(changes)
        if len(self.batches) + len(self._changes) > LOOK_ROWS:
            self.batches.take()
            self._changes.take()
            return None
        return [*self._appended(), *self._changed()]

    def _newest(self) -> tuple[int, int]:
        newest = self._session.one(sql.NEWEST)
        assert newest is not None
        return newest[0], newest[1]

    def _appended(self) -> Iterator[tuple[str, Notice]]:
        for first, last in self.batches.take():
            for name in _names.decode(self._session.value(sql.APPENDED, first, last)):
                yield name, Notice()

    def _changed(self) -> Iterator[tuple[str, Notice]]:
        for first, last in self._changes.take():
            for kind, topic in _changes.decode(self._session.value(sql.CHANGES, first, last)):
                yield topic, Notice(marks=kind == schema.MARKS)

"""What a new attempt finds: the log of the attempts before it, and what follows from it. Pure."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec.structs import replace

from loom.engine.declare.options import Retry
from loom.engine.declare.standing import Room, Standing
from loom.model.chunk import Batch, Chunk, Page
from loom.model.errors import Damaged, RemoteProtocolError
from loom.model.grammar import is_output
from loom.model.parts import Usage
from loom.model.retraction import MARKERS, Fold
from loom.wire.json import decode_chunk, type_of

__all__ = ["History", "Plan", "plan"]


class History:
    """Folds the pages of earlier attempts: what still stands (kept encoded), and how they ended."""

    def __init__(self, *, keep: bool, room: Room) -> None:
        self._keep = keep
        self.standing = Standing(room)
        self._fold = Fold()
        self.usage: Usage | None = None
        """What the attempts up to the last start had used, as far as it was told."""
        self.said = False
        """Whether any output was ever said."""

    def add(self, page: Page) -> None:
        """Fold the page that follows. Raises `Damaged`."""
        for batch in page.batches:
            try:
                self._add(batch)
            except (RemoteProtocolError, ValueError) as error:
                raise Damaged(f"the log cannot be read: {error}", details={"seq": batch.first}) from None

    def _add(self, batch: Batch) -> None:
        first, lines = batch.first, batch.lines()
        if len(lines) != len(batch):
            raise RemoteProtocolError(f"a batch of {len(batch)} chunks holds {len(lines)}")
        for seq, line in enumerate(lines, batch.first):
            type = type_of(line)
            if type in MARKERS:
                self._stand(batch, first, seq - 1)
                self._mark(seq, decode_chunk(line))
                first = seq + (type == "start")
            if is_output(type):
                self.said = True
        self._stand(batch, first, batch.last)

    def _stand(self, batch: Batch, first: int, last: int) -> None:
        if self._keep and first <= last:
            self.standing.append(batch.slice(first, last))

    def _mark(self, seq: int, chunk: Chunk[Any]) -> None:
        self.usage = chunk.usage or self.usage
        retraction = self._fold.feed(replace(chunk, seq=seq))
        if retraction is not None:
            self.standing.retract(retraction)


class Plan(msgspec.Struct, frozen=True):
    """What a new attempt does: `go`, keeping what was said through `kept_through`, or end the run as `lost`."""

    act: Literal["go", "lost"]
    kept_through: int = 0
    reason: str = ""


def plan(
    *,
    tail: int,
    said: bool,
    failed: bool,
    retry: Retry | None,
    starts_over: bool = False,
) -> Plan:
    """A run that has said nothing is simply tried again; after output it is the author's choice. `failed`: the attempt
    before ended by an error that may be retried; `starts_over`: by `StartOver`."""
    if retry is not None and retry.mode == "continue" and not starts_over:
        return Plan("go", kept_through=tail)
    if retry is not None or failed or not said:
        return Plan("go")
    return Plan("lost", reason="its worker was lost after output (retry=Retry(...) would have tried it again)")

"""A run in memory: its two logs, and what its head tells besides."""

from __future__ import annotations

import secrets
import time
from bisect import bisect_left
from collections.abc import Iterator
from math import inf
from operator import attrgetter

from msgspec.structs import replace

from loom.model import limits
from loom.model.chunk import Batch, Page
from loom.model.cursor import EPOCH_DIGITS, Cursor, make_epoch
from loom.model.errors import ErrorInfo
from loom.model.history import add_epoch, newest, page_of, start_after
from loom.model.run import NO_INPUT, Head, Mark, Meta, RunState, state_of
from loom.wire.json import ending_of

__all__ = ["BATCH_BYTES", "RUN_BYTES", "ByAge", "Log", "Run", "size_of"]

RUN_BYTES = 2048
"""The cost of a run besides its payload, about: objects, list slots, table entries."""

BATCH_BYTES = 160
"""The same of a batch."""

_last = attrgetter("last")


class Log:
    """Batches and the facts about them."""

    __slots__ = ("batches", "ended", "epoch", "epochs", "first", "size", "tail")

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.epochs: tuple[tuple[int, int], ...] = ()
        self.epoch = newest(self.epochs)
        self.first = 1
        self.tail = 0
        self.size = 0
        self.ended = False

    def begin(self, epoch: int) -> None:
        """Only `epoch` may append from now on."""
        self.epochs = add_epoch(self.epochs, epoch, self.tail)
        self.epoch = epoch

    @property
    def last(self) -> Batch | None:
        return self.batches[-1] if self.batches else None

    def page(self, after: Cursor | None, limit: int) -> Page:
        """What follows `after`, now. Raises `CursorExpired`."""
        start = start_after(after, epochs=self.epochs, first=self.first, tail=self.tail)
        index = bisect_left(self.batches, start, key=_last)
        batches = self.batches[index : index + max(limit, 1)]
        return page_of(batches, start, after=after, tail=self.tail, ended=self.ended, limit=limit)

    def trim(self, before: int) -> int:
        """Forget whole batches below seq `before`, never the last one; returns the bytes that this frees."""
        index = min(bisect_left(self.batches, before, key=_last), len(self.batches) - 1)
        if index <= 0:
            return 0
        freed = sum(map(size_of, self.batches[:index]))
        del self.batches[:index]
        self.first = self.batches[0].first
        self.size -= freed
        return freed


class Run:
    """One run's two logs, and what its head tells besides."""

    __slots__ = (
        "beat", "ended_at", "error", "expires", "failures", "heard", "inbox", "marks", "meta", "number", "outbox",
        "sent", "started", "tokens",
    )  # fmt: skip

    def __init__(self, meta: Meta, number: int) -> None:
        self.meta = meta
        self.number = number
        self.outbox = Log()
        self.inbox = Log()
        self.inbox.begin(make_epoch(1, secrets.randbelow(EPOCH_DIGITS)))
        self.tokens: dict[str, int] = {}
        self.sent: dict[tuple[str, str], Cursor] = {}
        self.marks: dict[str, Mark] = {}
        self.beat = 0
        self.heard: float | None = None
        self.failures = 0
        self.started: float | None = None
        self.ended_at: float | None = None
        self.expires = inf
        """When it was kept for long enough, by the store's clock."""
        self.error: ErrorInfo | None = None

    @property
    def state(self) -> RunState:
        return state_of(attempted=bool(self.tokens), error=self.error, ended=self.outbox.ended)

    @property
    def size(self) -> int:
        return RUN_BYTES + len(bytes(self.meta.input)) + self.outbox.size + self.inbox.size

    def end(self, batch: Batch) -> None:
        """Both logs have ended, with the last chunk of `batch`."""
        self.error, _ = ending_of(batch)
        self.outbox.ended = self.inbox.ended = True
        self.ended_at = time.time()

    def head(self, *, full: bool = True) -> Head:
        """The head; its input and result only if `full`."""
        log = self.outbox
        # The last batch is never trimmed, so the result need not be kept twice.
        result = ending_of(log.batches[-1])[1] if full and log.ended else None
        return Head(
            meta=self.meta if full else replace(self.meta, input=NO_INPUT),
            epochs=log.epochs,
            first=log.first,
            tail=log.tail,
            ended=log.ended,
            state=self.state,
            error=self.error,
            result=result,
            started=self.started,
            ended_at=self.ended_at,
            beat=self.beat,
            heard=self.heard,
        )


class ByAge:
    """Runs in the order in which they were created. Adding and removing cost the same however many there are."""

    def __init__(self) -> None:
        self._runs: dict[int, Run] = {}
        self._numbers: list[int] = []  # rising; of some that were removed, too

    def add(self, run: Run) -> None:
        """The newest of all."""
        self._runs[run.number] = run
        self._numbers.append(run.number)

    def remove(self, run: Run) -> None:
        del self._runs[run.number]
        if len(self._numbers) > 2 * len(self._runs) + limits.SWEEP_RUNS:
            self._numbers = list(self._runs)

    def newest_first(self, before: Run | None = None) -> Iterator[Run]:
        """All, or those older than `before`."""
        end = len(self._numbers) if before is None else bisect_left(self._numbers, before.number)
        numbers = (self._numbers[place] for place in range(end - 1, -1, -1))
        return (self._runs[number] for number in numbers if number in self._runs)


def size_of(batch: Batch) -> int:
    """What a batch takes, about."""
    return len(batch.payload) + BATCH_BYTES

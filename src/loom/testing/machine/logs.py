"""Logs against plain lists: append, lost acknowledgements, fences, zombies, crashes, cuts, trims, drops, ends; and the
producers of a log of many writers."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from loom.model.chunk import Batch, Chunk
from loom.model.cursor import Cursor, attempt_of
from loom.model.errors import (
    Conflict,
    CursorExpired,
    ErrorInfo,
    Fenced,
    LimitExceeded,
    LogEnded,
    LogNotFound,
    LoomError,
)
from loom.model.ports import Commit, Fence, LogSpec, LogStore, Notice, ProducerSeq, closing
from loom.tasks import cancel_and_wait, spawn
from loom.testing.author import read_all
from loom.wire.json import decode_chunk, make_batch

from .base import Machine

NAMES = ("a", "b")
LOGS = st.sampled_from(NAMES)
NUMBERS = st.integers(0, 50)
SIZES = st.integers(1, 4)
ENDINGS = st.sampled_from([None] * 8 + ["complete", "error"])
AFTERWARDS = st.sampled_from(["retry", "fence", "crash"])
RARELY = st.sampled_from([False] * 9 + [True])
STEPS = st.sampled_from([0] * 6 + [1, -1])

MANY = LogSpec(policy="many", content_type="application/octet-stream", max_records=8)
"""Of the logs of many writers: their records are no lines, so that bounds and cuts are met."""


class History:
    """The expected contents of a log of one writer."""

    def __init__(self) -> None:
        self.chunks: list[tuple[Cursor, bytes]] = []
        self.batches: list[Batch] = []
        self.first = 1
        self.ended: Commit | None = None
        self.epochs: list[int] = []
        self.tokens: dict[str, int] = {}
        self.marks: dict[str, int] = {}

    @property
    def tail(self) -> int:
        return len(self.chunks)

    def add(self, batch: Batch, commit: Commit | None) -> None:
        seqs = range(batch.first, batch.last + 1)
        self.chunks += [(Cursor(batch.epoch, seq), line) for seq, line in zip(seqs, batch.lines(), strict=True)]
        self.batches.append(batch)
        self.ended = commit

    def cursor(self, cut: int) -> Cursor | None:
        return self.chunks[cut - 1][0] if cut else None


class Box:
    """The expected contents of a log of many writers."""

    def __init__(self, most: int | None) -> None:
        self.records: list[tuple[Cursor, bytes]] = []
        self.first = 1
        self.ended = False
        self.most = most
        self.newest: dict[str, tuple[ProducerSeq, Cursor]] = {}

    def refusal(self, sent: ProducerSeq, *, urgent: bool) -> type[LoomError] | Cursor | None:
        """The error for a record, the cursor of one that is there already, or None: it is added."""
        known, cursor = self.newest.get(sent.producer, (ProducerSeq(sent.producer, -1, -1), None))
        expected = known.seq + 1 if sent.epoch == known.epoch else 0
        if sent.epoch < known.epoch:
            return Fenced
        if sent.seq > expected:
            return Conflict
        if sent.seq < expected:
            return cursor
        if self.ended:
            return LogEnded
        full = self.most is not None and len(self.records) - self.first + 1 >= self.most
        return LimitExceeded if full and not urgent else None


class LogMachine(Machine):
    """Two logs of one writer and two of many, each with its model beside it while it exists.

    Numbers that rules draw are folded into what there is, so that most draws try something.
    """

    many: ClassVar[LogSpec] = MANY

    def __init__(self) -> None:
        super().__init__()
        self.histories: dict[str, History] = {}
        self.boxes: dict[str, Box] = {}
        self.gone: dict[str, list[Cursor]] = {name: [] for log in NAMES for name in (log, self.box_of(log))}
        self.told: dict[str, list[Batch]] = {log: [] for log in self.gone}
        self.appended: list[Batch] = []
        self.fresh = 0
        self.do(self._watch())

    @staticmethod
    def box_of(log: str) -> str:
        """The log of many writers beside `log`."""
        return f"{log}/many"

    @property
    def logs(self) -> LogStore:
        return self.store.logs

    async def _watch(self) -> None:
        for log in self.told:
            self.logs.watch(log, lambda notice, log=log: self._notice(log, notice))  # type: ignore[misc]

    def _notice(self, log: str, notice: Notice) -> None:
        if notice.batch is not None:
            self.told[log].append(notice.batch)

    def _fresh(self) -> int:
        self.fresh += 1
        return self.fresh

    def _batch(self, epoch: int, first: int, size: int, ending: str | None) -> Batch:
        chunks: list[Chunk[Any]] = [Chunk("data", self._fresh()) for _ in range(size)]
        if ending:
            error = ErrorInfo("cancelled", "") if ending == "error" else None
            chunks[-1] = Chunk(ending, self._fresh(), error=error)
        batch = make_batch(epoch, first, chunks)
        self.appended.append(batch)
        return batch

    def _next(self, history: History, size: int, ending: str | None) -> tuple[Batch, Commit | None]:
        batch = self._batch(history.epochs[-1], history.tail + 1, size, ending)
        return batch, _commit(batch, ending)

    # --- a log's life ------------------------------------------------------------------------------------------------

    @initialize()
    def create_both(self) -> None:
        for log in NAMES:
            self.create(log)

    @rule(log=LOGS)
    def create(self, log: str) -> None:
        self.do_create(log)
        self.histories.setdefault(log, History())
        self.boxes.setdefault(self.box_of(log), Box(self.many.max_records))

    def do_create(self, log: str) -> None:
        history = self.histories.get(log, History())
        info = self.do(self.logs.create(log, LogSpec()))
        assert (info.spec, info.tail, info.ended) == (LogSpec(), history.tail, history.ended is not None)
        self.do(self.logs.create(self.box_of(log), self.many))
        self.refused(self.logs.create(log, self.many), Conflict)

    @rule(log=LOGS, rest=st.booleans())
    def drop(self, log: str, rest: bool) -> None:
        """Mostly to come again, and to say as much as before: another history at the same seqs."""
        self.do_drop(log)
        history, box = self.histories.pop(log, History()), self.boxes.pop(self.box_of(log), Box(None))
        self.gone[log] += [cursor for cursor, _ in history.chunks]
        self.gone[self.box_of(log)] += [cursor for cursor, _ in box.records]
        if not rest:
            self.create(log)
            if history.tail:
                self.append(log, history.tail, None)
            for producer in box.newest:
                self.send(log, producer, 0, 0, False, False)

    def do_drop(self, log: str) -> None:
        for name in (log, self.box_of(log)):
            self.do(self.logs.drop(name))

    @rule(log=LOGS)
    def fence(self, log: str) -> None:
        token = f"token-{self._fresh()}"
        if log not in self.histories:
            self.refused(self.logs.fence(log, token), LogNotFound)
        else:
            self._fenced(self.histories[log], token, self.do(self.logs.fence(log, token)))

    def _fenced(self, history: History, token: str, fence: Fence) -> None:
        assert (fence.tail, fence.ended) == (history.tail, history.ended is not None)
        if not history.ended:
            assert attempt_of(fence.epoch) > attempt_of(max(history.epochs, default=0))
            history.epochs.append(fence.epoch)
            history.tokens[token] = fence.epoch

    @precondition(lambda self: any(history.tokens for history in self.histories.values()))
    @rule(data=st.data())
    def fence_again(self, data: st.DataObject) -> None:
        log = data.draw(st.sampled_from([log for log, history in self.histories.items() if history.tokens]))
        history = self.histories[log]
        token, epoch = data.draw(st.sampled_from(list(history.tokens.items())))
        if epoch == history.epochs[-1]:
            fence = self.do(self.logs.fence(log, token))
            assert fence == Fence(epoch, history.tail, history.ended is not None, fence.size)
        elif not history.ended:
            self.refused(self.logs.fence(log, token), Fenced)

    @rule()
    def restart_it(self) -> None:
        if self.reopens:
            self.do(self.restart())
            self.do(self._watch())

    # --- appending ---------------------------------------------------------------------------------------------------

    def _writing(self, log: str) -> History:
        """The log's history, with a writer: made, and fenced, where there was none."""
        if log not in self.histories:
            self.create(log)
        if not self.histories[log].epochs:
            self.fence(log)
        return self.histories[log]

    @rule(log=LOGS, size=SIZES, ending=ENDINGS)
    def append(self, log: str, size: int, ending: str | None) -> None:
        history = self._writing(log)
        batch, commit = self._next(history, size, ending)
        if history.ended:
            self.refused(self.logs.append(log, batch, commit), LogEnded)
        else:
            assert self.do(self.logs.append(log, batch, commit)) == batch.cursor
            self.added(log, batch, commit)

    def added(self, log: str, batch: Batch, commit: Commit | None) -> None:
        self.histories[log].add(batch, commit)

    @rule(log=LOGS, size=SIZES, ending=ENDINGS, cut=st.integers(0, 5), then=AFTERWARDS)
    def append_and_lose_the_acknowledgement(self, log: str, size: int, ending: str | None, cut: int, then: str) -> None:
        """The call is cut somewhere, also in its middle; the same bytes are sent again, by who still may."""
        history = self._writing(log)
        if history.ended:
            return
        batch, commit = self._next(history, size, ending)
        self._cut(self.logs.append(log, batch, commit), cut, crash=then == "crash")
        if then == "fence":
            self._take_over(log, history, batch, commit)
            return
        for _ in range(2):
            assert self.do(self.logs.append(log, batch, commit)) == batch.cursor
        self.added(log, batch, commit)

    def _cut(self, call: Coroutine[Any, Any, Any], cut: int, *, crash: bool) -> None:
        """Begin a call, and lose its answer after `cut` turns of the loop."""

        async def begin() -> None:
            calling = spawn(call, "cut")
            for _ in range(cut):
                await asyncio.sleep(0)
            await cancel_and_wait(calling)

        self.do(begin())
        if crash:
            self.restart_it()

    def _take_over(self, log: str, history: History, batch: Batch, commit: Commit | None) -> None:
        """A new writer finds the batch stored or not; either way the old one adds nothing any more."""
        token = f"token-{self._fresh()}"
        fence = self.do(self.logs.fence(log, token))
        if fence.tail == batch.last:
            self.added(log, batch, commit)
        self._fenced(history, token, fence)
        if history.ended:
            assert self.do(self.logs.append(log, batch, commit)) == batch.cursor
        else:
            self.refused(self.logs.append(log, batch, commit), Fenced)

    @rule(log=LOGS, which=NUMBERS, size=SIZES, ending=ENDINGS)
    def zombie_append(self, log: str, which: int, size: int, ending: str | None) -> None:
        """It would continue the tail exactly: only the epoch is old."""
        history = self._writing(log)
        if len(history.epochs) == 1:
            self.fence(log)
        if len(history.epochs) > 1:
            epoch = history.epochs[which % (len(history.epochs) - 1)]
            batch = self._batch(epoch, history.tail + 1, size, ending)
            self.refused(self.logs.append(log, batch, _commit(batch, ending)), Fenced)

    @rule(log=LOGS, which=NUMBERS, size=SIZES, ending=ENDINGS)
    def append_elsewhere(self, log: str, which: int, size: int, ending: str | None) -> None:
        """A batch that neither continues the tail nor repeats the last one: before it, over it, or behind a gap."""
        history = self._writing(log)
        first = which % (history.tail + 3) + 1
        if first != history.tail + 1:
            batch = self._batch(history.epochs[-1], first, size, ending)
            refusal = LogEnded if history.ended else Conflict
            self.refused(self.logs.append(log, batch, _commit(batch, ending)), refusal)

    @rule(log=LOGS)
    def append_the_last_again(self, log: str) -> None:
        history = self._writing(log)
        for last in history.batches[-1:]:
            if last.epoch == history.epochs[-1]:
                assert self.do(self.logs.append(log, last, history.ended)) == last.cursor
            else:
                self.refused(self.logs.append(log, last), Fenced)

    # --- reading -----------------------------------------------------------------------------------------------------

    @rule(log=LOGS, cut=NUMBERS, limit=st.integers(1, 10), limit_bytes=st.sampled_from([1, 60, 200, 10**6]))
    def read(self, log: str, cut: int, limit: int, limit_bytes: int) -> None:
        """From any cut: what follows, once, or `CursorExpired` where that was trimmed."""
        history = self.histories.get(log)
        if history is None:
            self.refused(self.logs.read(log), LogNotFound)
            return
        cut %= history.tail + 1
        if cut + 1 < history.first:
            self.refused(self.logs.read(log, history.cursor(cut)), CursorExpired)
        else:
            reading = read_all(self.logs, log, history.cursor(cut), limit=limit, limit_bytes=limit_bytes)
            assert self.do(reading) == history.chunks[cut:]
            page = self.do(self.logs.read(log, history.cursor(cut), limit=limit, limit_bytes=limit_bytes))
            assert page.caught_up == (cut + len(page) == history.tail)
            assert page.ended == (history.ended is not None and page.caught_up)

    @rule(log=LOGS, which=NUMBERS, box=st.booleans())
    def read_after_a_drop(self, log: str, which: int, box: bool) -> None:
        """A cursor of a history that is gone."""
        name = self.box_of(log) if box else log
        if self.gone[name]:
            cursor = self.gone[name][which % len(self.gone[name])]
            self.refused(self.logs.read(name, cursor), CursorExpired if log in self.histories else LogNotFound)

    @rule(log=LOGS, which=NUMBERS, seq=NUMBERS)
    def read_what_was_never_written(self, log: str, which: int, seq: int) -> None:
        """A known epoch with a seq that it did not write."""
        history = self._writing(log)
        cursor = Cursor(history.epochs[which % len(history.epochs)], seq % (history.tail + 2) + 1)
        if cursor not in [written for written, _ in history.chunks]:
            self.refused(self.logs.read(log, cursor), CursorExpired)

    @rule(log=LOGS, which=NUMBERS)
    def trim(self, log: str, which: int) -> None:
        history = self.histories.get(log)
        if history is None:
            self.refused(self.logs.trim(log, which), LogNotFound)
            return
        before = which % (history.tail + 3)
        kept = [batch.first for batch in history.batches if batch.last >= before]
        history.first = max(history.first, *kept[:1], *[batch.first for batch in history.batches[-1:] if not kept], 1)
        assert self.do(self.logs.trim(log, before)) == history.first

    # --- many writers ------------------------------------------------------------------------------------------------

    @rule(log=LOGS, producer=st.sampled_from("xyz"), epoch=STEPS, seq=STEPS, end=RARELY, urgent=RARELY)
    def send(self, log: str, producer: str, epoch: int, seq: int, end: bool, urgent: bool) -> None:
        """Mostly the producer's next record; also one that is there, one behind a gap, one of another epoch."""
        name, (sent, record) = self.box_of(log), self._record(log, producer, epoch, seq)
        sending = self.logs.send(name, record, sent, end=end and self.many == MANY, urgent=urgent)
        box = self.boxes.get(name)
        refusal = LogNotFound if box is None else box.refusal(sent, urgent=urgent)
        if isinstance(refusal, type):
            self.refused(sending, refusal)
        elif isinstance(refusal, Cursor):
            assert self.do(sending) == refusal
        else:
            self._sent(name, sent, record, self.do(sending))
            self.boxes[name].ended = end and self.many == MANY

    @rule(log=LOGS, producer=st.sampled_from("xyz"), cut=st.integers(0, 5), crash=st.booleans())
    def send_and_lose_the_acknowledgement(self, log: str, producer: str, cut: int, crash: bool) -> None:
        """The call is cut somewhere, also in its middle; sent again, the record is there once."""
        name, (sent, record) = self.box_of(log), self._record(log, producer, 0, 0)
        if name in self.boxes and self.boxes[name].refusal(sent, urgent=True) is None:
            self._cut(self.logs.send(name, record, sent, urgent=True), cut, crash=crash)
            cursor = self.do(self.logs.send(name, record, sent, urgent=True))
            assert self.do(self.logs.send(name, record, sent)) == cursor
            self._sent(name, sent, record, cursor)

    def _record(self, log: str, producer: str, epoch: int, seq: int) -> tuple[ProducerSeq, bytes]:
        box = self.boxes.get(self.box_of(log))
        known = box.newest[producer][0] if box and producer in box.newest else ProducerSeq(producer, 0, -1)
        epoch = max(known.epoch + epoch, 0)
        expected = known.seq + 1 if epoch == known.epoch else 0
        return ProducerSeq(producer, epoch, max(expected + seq, 0)), self.record(self._fresh())

    def record(self, number: int) -> bytes:
        return b"\n%d\n\n" % number

    def _sent(self, name: str, sent: ProducerSeq, record: bytes, cursor: Cursor) -> None:
        box = self.boxes[name]
        payload = record if self.many == MANY else record + b"\n"
        box.records.append((cursor, payload))
        assert cursor.seq == len(box.records)
        box.newest[sent.producer] = (sent, cursor)
        self.appended.append(Batch(cursor.epoch, cursor.seq, cursor.seq, payload))

    @rule(log=LOGS, which=NUMBERS)
    def trim_what_many_wrote(self, log: str, which: int) -> None:
        name = self.box_of(log)
        if name in self.boxes:
            box = self.boxes[name]
            before = which % (len(box.records) + 3)
            box.first = max(box.first, min(before, len(box.records)))
            assert self.do(self.logs.trim(name, before)) == box.first

    # --- readers -----------------------------------------------------------------------------------------------------

    @rule(log=LOGS, reader=st.sampled_from("xyz"), seq=st.none() | NUMBERS)
    def commit_position(self, log: str, reader: str, seq: int | None) -> None:
        history = self.histories.get(log)
        committing = self.logs.commit_position(log, reader, seq)
        if history is None:
            self.refused(committing, LogNotFound)
            return
        self.do(committing)
        history.marks.pop(reader, None)
        if seq is not None:
            history.marks[reader] = seq

    @rule(log=LOGS)
    def positions(self, log: str) -> None:
        """Where the machine is slow, readers may have been forgotten meanwhile."""
        history = self.histories.get(log)
        if history is None:
            self.refused(self.logs.positions(log), LogNotFound)
            return
        found = self.do(self.logs.positions(log))
        assert {mark.reader: mark.seq for mark in found}.items() <= history.marks.items()

    # --- always ------------------------------------------------------------------------------------------------------

    @invariant()
    def the_store_holds_what_the_model_holds(self) -> None:
        for log, history in self.histories.items():
            info = self.do(self.logs.info(log))
            ended = history.ended is not None
            assert (info.first, info.tail, info.ended) == (history.first, history.tail, ended)
            assert attempt_of(info.epochs[-1][0] if info.epochs else 0) == attempt_of((history.epochs or [0])[-1])
            assert info.earliest == history.cursor(history.first - 1)
            assert info.size == sum(len(line) + 1 for _, line in history.chunks[history.first - 1 :])
            assert self.do(read_all(self.logs, log, info.earliest)) == history.chunks[history.first - 1 :]

    @invariant()
    def the_store_holds_what_many_wrote(self) -> None:
        for name, box in self.boxes.items():
            info = self.do(self.logs.info(name))
            assert (info.spec, info.first, info.tail) == (self.many, box.first, len(box.records))
            assert info.ended == box.ended
            page = self.do(self.logs.read(name, info.earliest))
            kept = box.records[box.first - 1 :]
            if self.many == MANY:
                held = [(batch.cursor, batch.payload) for batch in page.batches]
            else:  # of lines a store may join what was sent apart
                held = [(cursor, line + b"\n") for cursor, line in page.lines()]
            assert held == kept
            assert info.size == sum(len(payload) for _, payload in kept)

    @invariant()
    def notices_tell_what_was_appended(self) -> None:
        for told in self.told.values():
            assert all(batch in self.appended for batch in told)
            told.clear()


def _commit(batch: Batch, ending: str | None) -> Commit | None:
    return closing(decode_chunk(batch.lines()[-1])) if ending else None

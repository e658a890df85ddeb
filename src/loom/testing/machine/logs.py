"""Logs against plain lists: append, lost acknowledgements, fences, zombies, crashes, cuts, trims, drops, ends."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from loom.model.chunk import Batch, Chunk
from loom.model.cursor import Cursor, attempt_of
from loom.model.errors import Conflict, CursorExpired, ErrorInfo, Fenced, LogEnded, LogNotFound
from loom.model.ports import Fence, Notice
from loom.model.run import Meta, inbox_of
from loom.tasks import cancel_and_wait, spawn
from loom.testing.author import read_all
from loom.wire.json import encode, make_batch

from .base import Machine

RUNS = st.sampled_from(["a", "b"])
NUMBERS = st.integers(0, 50)
SIZES = st.integers(1, 4)
ENDINGS = st.sampled_from([None] * 8 + ["complete", "error"])
AFTERWARDS = st.sampled_from(["retry", "fence", "crash"])


class History:
    """What a run's logs have to hold."""

    def __init__(self) -> None:
        self.chunks: list[tuple[Cursor, bytes]] = []
        self.batches: list[Batch] = []
        self.first = 1
        self.ended = False
        self.epochs: list[int] = []
        self.tokens: dict[str, int] = {}
        self.sent: dict[tuple[str, str], Cursor] = {}
        self.messages: list[bytes] = []
        self.marks: dict[str, int] = {}

    @property
    def tail(self) -> int:
        return len(self.chunks)

    def add(self, batch: Batch, end: bool) -> None:
        seqs = range(batch.first, batch.last + 1)
        self.chunks += [(Cursor(batch.epoch, seq), line) for seq, line in zip(seqs, batch.lines(), strict=True)]
        self.batches.append(batch)
        self.ended = end

    def cursor(self, cut: int) -> Cursor | None:
        return self.chunks[cut - 1][0] if cut else None


class LogMachine(Machine):
    """Two runs of a store, each with a `History` beside it while it exists.

    Numbers that rules draw are folded into what there is, so that most draws try something.
    """

    def __init__(self) -> None:
        super().__init__()
        self.runs: dict[str, History] = {}
        self.gone: dict[str, list[Cursor]] = {log: [] for run in ("a", "b") for log in (run, inbox_of(run))}
        self.told: dict[str, list[Batch]] = {"a": [], "b": []}
        self.appended: list[Batch] = []
        self.fresh = 0
        self.do(self._watch())

    async def _watch(self) -> None:
        for run in ("a", "b"):
            self.store.watch(run, lambda notice, run=run: self._notice(run, notice))  # type: ignore[misc]

    def _notice(self, run: str, notice: Notice) -> None:
        if notice.batch is not None:
            self.told[run].append(notice.batch)

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

    def _next(self, history: History, size: int, ending: str | None) -> Batch:
        return self._batch(history.epochs[-1], history.tail + 1, size, ending)

    # --- a run's life ------------------------------------------------------------------------------------------------

    @initialize()
    def create_both(self) -> None:
        for run in ("a", "b"):
            self.create(run)

    @rule(run=RUNS)
    def create(self, run: str) -> None:
        head = self.do(self.store.create(Meta(run=run, actor="actor")))
        history = self.runs.setdefault(run, History())
        assert (head.tail, head.ended) == (history.tail, history.ended)

    @rule(run=RUNS, rest=st.booleans())
    def drop(self, run: str, rest: bool) -> None:
        """Mostly to come again, and to say as much as before: another history at the same seqs."""
        self.do(self.store.drop(run))
        history = self.runs.pop(run, History())
        self.gone[run] += [cursor for cursor, _ in history.chunks]
        self.gone[inbox_of(run)] += history.sent.values()
        if not rest:
            self.create(run)
            if history.tail:
                self.append(run, history.tail, None)
            for sender, id in history.sent:
                self.send(run, sender, id)

    @rule(run=RUNS)
    def fence(self, run: str) -> None:
        token = f"token-{self._fresh()}"
        if run not in self.runs:
            self.refused(self.store.fence(run, token), LogNotFound)
        else:
            self._fenced(self.runs[run], token, self.do(self.store.fence(run, token)))

    def _fenced(self, history: History, token: str, fence: Fence) -> None:
        assert (fence.tail, fence.ended) == (history.tail, history.ended)
        if not history.ended:
            assert attempt_of(fence.epoch) > attempt_of(max(history.epochs, default=0))
            history.epochs.append(fence.epoch)
            history.tokens[token] = fence.epoch

    @precondition(lambda self: any(history.tokens for history in self.runs.values()))
    @rule(data=st.data())
    def fence_again(self, data: st.DataObject) -> None:
        run = data.draw(st.sampled_from([run for run, history in self.runs.items() if history.tokens]))
        history = self.runs[run]
        token, epoch = data.draw(st.sampled_from(list(history.tokens.items())))
        if epoch == history.epochs[-1]:
            fence = self.do(self.store.fence(run, token))
            assert fence == Fence(epoch, history.tail, history.ended, fence.size)
        elif not history.ended:
            self.refused(self.store.fence(run, token), Fenced)

    @rule(run=RUNS, rarely=st.integers(0, 9))
    def end_unstarted(self, run: str, rarely: int) -> None:
        """Rarely where it does end the run: there is not much to try afterwards."""
        if run in self.runs and not self.runs[run].tokens and rarely:
            return
        line = encode(Chunk("error", self._fresh(), error=ErrorInfo("cancelled", "")))
        history = self.runs.get(run)
        if history is None:
            self.refused(self.store.end_unstarted(run, line), LogNotFound)
            return
        assert self.do(self.store.end_unstarted(run, line)) == (not history.tokens)
        if not history.tokens and not history.ended:
            (epoch, _), *others = self.do(self.store.head(run)).epochs
            assert others == []
            assert attempt_of(epoch) == 0
            history.epochs.append(epoch)
            history.add(Batch(epoch, 1, 1, line + b"\n"), end=True)
            self.appended.append(history.batches[-1])

    @rule()
    def restart_it(self) -> None:
        if self.reopens:
            self.do(self.restart())
            self.do(self._watch())

    # --- appending ---------------------------------------------------------------------------------------------------

    def _writing(self, run: str) -> History:
        """The run's history, with a writer: made, and fenced, where there was none."""
        if run not in self.runs:
            self.create(run)
        if not self.runs[run].epochs:
            self.fence(run)
        return self.runs[run]

    @rule(run=RUNS, size=SIZES, ending=ENDINGS)
    def append(self, run: str, size: int, ending: str | None) -> None:
        history = self._writing(run)
        batch = self._next(history, size, ending)
        if history.ended:
            self.refused(self.store.append(run, batch, end=ending is not None), LogEnded)
        else:
            assert self.do(self.store.append(run, batch, end=ending is not None)) == batch.cursor
            history.add(batch, ending is not None)

    @rule(run=RUNS, size=SIZES, ending=ENDINGS, cut=st.integers(0, 5), then=AFTERWARDS)
    def append_and_lose_the_acknowledgement(self, run: str, size: int, ending: str | None, cut: int, then: str) -> None:
        """The call is cut somewhere, also in its middle; the same bytes are sent again, by who still may."""
        history = self._writing(run)
        if history.ended:
            return
        batch, end = self._next(history, size, ending), ending is not None
        self.do(self._cut_append(run, batch, end, cut, crash=then == "crash" and self.reopens))
        if then == "fence":
            self._take_over(run, history, batch, end)
            return
        for _ in range(2):
            assert self.do(self.store.append(run, batch, end=end)) == batch.cursor
        history.add(batch, end)

    async def _cut_append(self, run: str, batch: Batch, end: bool, cut: int, *, crash: bool) -> None:
        appending = spawn(self.store.append(run, batch, end=end), "append")
        for _ in range(cut):
            await asyncio.sleep(0)
        await cancel_and_wait(appending)
        if crash:
            await self.restart()
            await self._watch()

    def _take_over(self, run: str, history: History, batch: Batch, end: bool) -> None:
        """A new writer finds the batch stored or not; either way the old one adds nothing any more."""
        token = f"token-{self._fresh()}"
        fence = self.do(self.store.fence(run, token))
        if fence.tail == batch.last:
            history.add(batch, end)
        self._fenced(history, token, fence)
        if history.ended:
            assert self.do(self.store.append(run, batch, end=end)) == batch.cursor
        else:
            self.refused(self.store.append(run, batch, end=end), Fenced)

    @rule(run=RUNS, which=NUMBERS, size=SIZES, ending=ENDINGS)
    def zombie_append(self, run: str, which: int, size: int, ending: str | None) -> None:
        """It would continue the tail exactly: only the epoch is old."""
        history = self._writing(run)
        if len(history.epochs) == 1:
            self.fence(run)
        if len(history.epochs) > 1:
            epoch = history.epochs[which % (len(history.epochs) - 1)]
            batch = self._batch(epoch, history.tail + 1, size, ending)
            self.refused(self.store.append(run, batch, end=ending is not None), Fenced)

    @rule(run=RUNS, which=NUMBERS, size=SIZES, ending=ENDINGS)
    def append_elsewhere(self, run: str, which: int, size: int, ending: str | None) -> None:
        """What does not continue the tail, nor repeats what is there: before it, over it, or behind a gap."""
        history = self._writing(run)
        first = which % (history.tail + 3) + 1
        if first != history.tail + 1:
            batch = self._batch(history.epochs[-1], first, size, ending)
            refusal = LogEnded if history.ended else Conflict
            self.refused(self.store.append(run, batch, end=ending is not None), refusal)

    @rule(run=RUNS)
    def append_the_last_again(self, run: str) -> None:
        history = self._writing(run)
        for last in history.batches[-1:]:
            if last.epoch == history.epochs[-1]:
                assert self.do(self.store.append(run, last, end=history.ended)) == last.cursor
            else:
                self.refused(self.store.append(run, last), Fenced)

    # --- reading -----------------------------------------------------------------------------------------------------

    @rule(run=RUNS, cut=NUMBERS, limit=st.integers(1, 10))
    def read(self, run: str, cut: int, limit: int) -> None:
        """From any cut: what follows, once, or `CursorExpired` where that was trimmed."""
        history = self.runs.get(run)
        if history is None:
            self.refused(self.store.read(run), LogNotFound)
            return
        cut %= history.tail + 1
        if cut + 1 < history.first:
            self.refused(self.store.read(run, history.cursor(cut)), CursorExpired)
        else:
            lines = self.do(read_all(self.store, run, history.cursor(cut), limit=limit))
            assert lines == history.chunks[cut:]
            page = self.do(self.store.read(run, history.cursor(cut), limit=limit))
            assert page.caught_up == (cut + len(page) == history.tail)
            assert page.ended == (history.ended and page.caught_up)

    @rule(run=RUNS, which=NUMBERS, inbox=st.booleans())
    def read_after_a_drop(self, run: str, which: int, inbox: bool) -> None:
        """A cursor of a history that is gone."""
        log = inbox_of(run) if inbox else run
        if self.gone[log]:
            cursor = self.gone[log][which % len(self.gone[log])]
            self.refused(self.store.read(log, cursor), CursorExpired if run in self.runs else LogNotFound)

    @rule(run=RUNS, which=NUMBERS, seq=NUMBERS)
    def read_what_was_never_written(self, run: str, which: int, seq: int) -> None:
        """A known epoch with a seq that it did not write."""
        history = self._writing(run)
        cursor = Cursor(history.epochs[which % len(history.epochs)], seq % (history.tail + 2) + 1)
        if cursor not in [written for written, _ in history.chunks]:
            self.refused(self.store.read(run, cursor), CursorExpired)

    @rule(run=RUNS, which=NUMBERS)
    def trim(self, run: str, which: int) -> None:
        history = self.runs.get(run)
        if history is None:
            self.refused(self.store.trim(run, which), LogNotFound)
            return
        before = which % (history.tail + 3)
        kept = [batch.first for batch in history.batches if batch.last >= before]
        history.first = max(history.first, *kept[:1], *[batch.first for batch in history.batches[-1:] if not kept], 1)
        assert self.do(self.store.trim(run, before)) == history.first

    # --- the inbox ---------------------------------------------------------------------------------------------------

    @rule(run=RUNS, sender=st.sampled_from("xy"), id=st.sampled_from("1234"))
    def send(self, run: str, sender: str, id: str) -> None:
        message = encode([sender, id, self._fresh()])
        history = self.runs.get(run)
        sending = self.store.send(run, message, sender=sender, id=id)
        if history is None:
            self.refused(sending, LogNotFound)
        elif (sender, id) in history.sent:
            assert self.do(sending) == history.sent[sender, id]
        elif history.ended:
            self.refused(sending, LogEnded)
        else:
            history.sent[sender, id] = self.do(sending)
            history.messages.append(message)

    # --- readers -----------------------------------------------------------------------------------------------------

    @rule(run=RUNS, reader=st.sampled_from("xyz"), seq=st.none() | NUMBERS)
    def mark(self, run: str, reader: str, seq: int | None) -> None:
        history = self.runs.get(run)
        marking = self.store.mark(run, reader, seq)
        if history is None:
            self.refused(marking, LogNotFound)
            return
        self.do(marking)
        history.marks.pop(reader, None)
        if seq is not None:
            history.marks[reader] = seq

    @rule(run=RUNS)
    def marks(self, run: str) -> None:
        """Where the machine is slow, readers may have been forgotten meanwhile."""
        history = self.runs.get(run)
        if history is None:
            self.refused(self.store.marks(run), LogNotFound)
            return
        found = self.do(self.store.marks(run))
        assert {mark.reader: mark.seq for mark in found}.items() <= history.marks.items()

    # --- always ------------------------------------------------------------------------------------------------------

    @invariant()
    def the_store_holds_what_the_model_holds(self) -> None:
        for run, history in self.runs.items():
            head = self.do(self.store.head(run))
            assert (head.first, head.tail, head.ended) == (history.first, history.tail, history.ended)
            assert head.attempt == attempt_of(history.epochs[-1] if history.epochs else 0)
            assert head.earliest == history.cursor(history.first - 1)
            assert self.do(read_all(self.store, run, head.earliest)) == history.chunks[history.first - 1 :]
            inbox = self.do(read_all(self.store, inbox_of(run)))
            assert inbox == list(zip(history.sent.values(), history.messages, strict=True))

    @invariant()
    def lists_are_right(self) -> None:
        assert {head.meta.run for head in self.do(self.store.heads())} == set(self.runs)

    @invariant()
    def notices_tell_what_was_appended(self) -> None:
        for told in self.told.values():
            assert all(batch in self.appended for batch in told)
            told.clear()

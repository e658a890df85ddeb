"""Runs against plain values: two logs and a record each, whose state and error come with the end; lists by filters."""

from __future__ import annotations

from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

from loom.model.chunk import Batch, Chunk
from loom.model.cursor import attempt_of
from loom.model.errors import Conflict, ErrorInfo, LogNotFound, UsageError
from loom.model.ports import INBOX, Commit, LogSpec, closing
from loom.model.run import Meta, RunFilter, RunState, inbox_of
from loom.wire.json import decode_chunk, encode

from .logs import LOGS, NUMBERS, History, LogMachine

METAS = {
    "a": Meta(run="a", actor="actor", labels={"user": "1", "team": "red"}, parent="p", root="r"),
    "b": Meta(run="b", actor="other", labels={"user": "2", "team": "red"}, root="r"),
}
STATES = st.sampled_from([None, "queued", "running", "completed", "failed", "cancelled"])
LABELS = st.sampled_from([{}, {"team": "red"}, {"user": "1"}, {"user": "2", "team": "red"}, {"user": "3"}])


class RunMachine(LogMachine):
    """Everything that holds of logs, on the outboxes and inboxes of two runs; and their records."""

    many: ClassVar[LogSpec] = INBOX

    def __init__(self) -> None:
        super().__init__()
        self.order: list[str] = []

    @staticmethod
    def box_of(log: str) -> str:
        return inbox_of(log)

    def record(self, number: int) -> bytes:
        return b"%d" % number

    def do_create(self, log: str) -> None:
        history = self.histories.get(log, History())
        head = self.do(self.store.runs.create(METAS[log]))
        assert (head.tail, head.ended) == (history.tail, history.ended is not None)
        if log not in self.order:
            self.order.append(log)
        self.refused(self.logs.create(log, LogSpec()), Conflict)

    def do_drop(self, log: str) -> None:
        if log in self.order:
            self.order.remove(log)
            self.refused(self.logs.drop(log), UsageError)
        self.do(self.store.runs.drop(log))

    def added(self, log: str, batch: Batch, commit: Commit | None) -> None:
        super().added(log, batch, commit)
        self.boxes[inbox_of(log)].ended = commit is not None

    @rule(log=LOGS, rarely=st.integers(0, 9))
    def cancel_unstarted(self, log: str, rarely: int) -> None:
        """Rarely where it does end the run: there is not much to try afterwards."""
        if log in self.histories and not self.histories[log].tokens and rarely:
            return
        line = encode(Chunk("error", self._fresh(), error=ErrorInfo("cancelled", "")))
        history = self.histories.get(log)
        if history is None:
            self.refused(self.store.runs.cancel_unstarted(log, line), LogNotFound)
            return
        assert self.do(self.store.runs.cancel_unstarted(log, line)) == (not history.tokens)
        if not history.tokens and not history.ended:
            (epoch, _), *others = self.do(self.store.runs.get(log)).epochs
            assert others == []
            assert attempt_of(epoch) == 0
            history.epochs.append(epoch)
            batch = Batch(epoch, 1, 1, line + b"\n")
            self.added(log, batch, closing(decode_chunk(line)))
            self.appended.append(batch)

    @rule(log=LOGS)
    def heartbeat(self, log: str) -> None:
        if log not in self.histories:
            self.refused(self.store.runs.heartbeat(log), LogNotFound)
            return
        before = self.do(self.store.runs.get(log)).beat
        self.do(self.store.runs.heartbeat(log))
        after = self.do(self.store.runs.get(log)).beat
        assert after == before if self.histories[log].ended else after > before

    def _state(self, log: str) -> RunState:
        history = self.histories[log]
        if history.ended is not None:
            assert history.ended.state is not None
            return history.ended.state
        return "running" if history.tokens else "queued"

    @rule(
        state=STATES,
        actor=st.sampled_from([None, None, "actor", "other"]),
        labels=LABELS,
        parent=st.sampled_from([None, None, "p"]),
        root=st.sampled_from([None, "r"]),
        which=NUMBERS,
    )
    def list_by(self, which: int, **filters: Any) -> None:
        labels, state = filters["labels"], filters["state"]
        expected = [
            run
            for run in reversed(self.order)
            if state in (None, self._state(run))
            and labels.items() <= METAS[run].labels.items()
            and all(filters[name] in (None, getattr(METAS[run], name)) for name in ("actor", "parent", "root"))
        ]
        assert [head.meta.run for head in self.do(self.store.runs.list_runs(RunFilter(**filters)))] == expected
        if self.order:
            before = self.order[which % len(self.order)]
            older = self.order[: self.order.index(before)]
            found = self.do(self.store.runs.list_runs(RunFilter(**filters), before=before))
            assert [head.meta.run for head in found] == [run for run in expected if run in older]

    @invariant()
    def records_are_right(self) -> None:
        for run, history in self.histories.items():
            head = self.do(self.store.runs.get(run))
            assert (head.meta, head.state) == (METAS[run], self._state(run))
            assert (head.first, head.tail) == (history.first, history.tail)
            assert head.error == (history.ended.error if history.ended else None)
            assert head.attempt == attempt_of((history.epochs or [0])[-1])

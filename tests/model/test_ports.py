"""The ports: what is a store is one for the type checker too, and notices are values."""

from __future__ import annotations

import pytest

from loom.model.chunk import Batch, Chunk
from loom.model.errors import DEAD, ErrorInfo
from loom.model.ports import (
    INBOX,
    JSON_LINES,
    OUTBOX,
    Commit,
    Fence,
    LogStore,
    Notice,
    ProducerSeq,
    RunStore,
    Store,
    SweepReport,
    WorkerRegistry,
    WorkQueue,
    closing,
    message_producer,
)
from loom.model.run import RunState
from loom.stores.memory import MemoryStore


def test_the_memory_store_is_a_store() -> None:
    store: Store = MemoryStore()
    logs: LogStore = store.logs
    runs: RunStore = store.runs
    queue: WorkQueue = store.queue
    workers: WorkerRegistry = store.workers
    assert len({id(port) for port in (logs, runs, queue, workers)}) == 4


def test_values_have_plain_defaults() -> None:
    assert (Notice().batch, Notice().ended) == (None, False)
    assert SweepReport() == SweepReport(requeued=0, dropped=0)
    assert Notice(Batch(1, 1, 1, b"{}\n")) == Notice(Batch(1, 1, 1, b"{}\n"))
    assert Fence(1, 2, False) == Fence(epoch=1, tail=2, ended=False)
    assert ProducerSeq("p") == ProducerSeq("p", epoch=0, seq=0)


def test_a_run_is_two_logs_of_lines() -> None:
    assert (OUTBOX.policy, INBOX.policy) == ("single", "many")
    assert OUTBOX.content_type == INBOX.content_type == JSON_LINES


def test_a_message_is_a_producer_of_its_own() -> None:
    assert message_producer("a", "b") == message_producer("a", "b")
    assert len({message_producer(*names).producer for names in (("a", "b"), ("ab", ""), ("b", "a"))}) == 3


@pytest.mark.parametrize(
    ("chunk", "state"),
    [
        (Chunk("complete", 1), "completed"),
        (Chunk("error", error=ErrorInfo("run_failed", "")), "failed"),
        (Chunk("error", error=ErrorInfo("whatever", "", details={DEAD: True})), "dead"),
        (Chunk("error", error=ErrorInfo("cancelled", "")), "cancelled"),
        (Chunk("error", error=ErrorInfo("run_lost", "")), "lost"),
    ],
)
def test_the_last_chunk_says_how_a_run_ended(chunk: Chunk[object], state: RunState) -> None:
    assert closing(chunk) == Commit(end=True, state=state, error=chunk.error)


def test_an_error_without_words_is_one_still() -> None:
    assert closing(Chunk("error")) == Commit(state="failed", error=ErrorInfo("run_failed", ""))

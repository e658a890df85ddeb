"""What a new attempt finds, and what follows from it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom.engine.context import Previous
from loom.engine.history import History, plan
from loom.engine.registry import Retry
from loom.model.chunk import Batch, Chunk, Page
from loom.model.errors import ErrorInfo
from loom.model.grammar import fold
from loom.wire.json import decode_batch, make_batch


def start(attempt: int, kept: int, error: ErrorInfo | None = None) -> Chunk[Any]:
    return Chunk("start", {"attempt": attempt, "actor": "a", "kept_through": kept}, error=error)


def pages(chunks: list[Chunk[Any]], cuts: set[int]) -> list[Page]:
    """The chunks as one log, in batches that are cut where `cuts` says (each attempt in batches of its own)."""
    batches: list[Batch] = []
    pending: list[Chunk[Any]] = []
    for seq, chunk in enumerate(chunks, 1):
        if pending and (seq in cuts or chunk.type == "start"):
            batches.append(make_batch(1, seq - len(pending), pending))
            pending = []
        pending.append(chunk)
    if pending:
        batches.append(make_batch(1, len(chunks) + 1 - len(pending), pending))
    return [Page((batch,), batch.cursor, False, False) for batch in batches]


@given(
    attempts=st.lists(st.tuples(st.integers(0, 6), st.booleans(), st.booleans()), min_size=1, max_size=5),
    cuts=st.sets(st.integers(1, 40)),
)
def test_what_stands_is_what_the_grammar_folds(attempts: list[tuple[int, bool, bool]], cuts: set[int]) -> None:
    chunks: list[Chunk[Any]] = []
    for number, (count, continues, failed) in enumerate(attempts, 1):
        kept = len(chunks) if continues else 0
        chunks.append(start(number, kept, ErrorInfo("run_failed", "x") if failed and number > 1 else None))
        chunks.extend(Chunk("data", [number, i]) for i in range(count))
    history = History(keep=True)
    decoded: list[Chunk[Any]] = []
    for page in pages(chunks, cuts):
        history.add(page)
        decoded.extend(chunk for batch in page.batches for chunk in decode_batch(batch))
    assert list(Previous(history.standing)) == fold(decoded)
    assert history.failures == sum(failed for _, _, failed in attempts[1:])
    assert history.said == any(count for count, _, _ in attempts)


def test_one_that_does_not_continue_keeps_nothing() -> None:
    history = History(keep=False)
    for page in pages([start(1, 0), Chunk("data", 1)], set()):
        history.add(page)
    assert history.standing == []
    assert history.said


CONTINUE, RESTART = Retry(mode="continue"), Retry()


@pytest.mark.parametrize(
    ("said", "failed", "crashes", "retry", "act", "kept"),
    [
        (False, False, 0, None, "go", 0),
        (False, False, 5, None, "go", 0),
        (False, False, 6, None, "lost", 0),
        (True, False, 1, None, "lost", 0),
        (True, False, 1, RESTART, "go", 0),
        (True, False, 1, CONTINUE, "go", 9),
        (True, True, 0, RESTART, "go", 0),
        (True, False, 6, CONTINUE, "lost", 0),
    ],
)
def test_what_follows(said: bool, failed: bool, crashes: int, retry: Retry | None, act: str, kept: int) -> None:
    verdict = plan(tail=9, said=said, failed=failed, crashes=crashes, max_crashes=5, retry=retry)
    assert (verdict.act, verdict.kept_through) == (act, kept)

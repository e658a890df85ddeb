"""What a new attempt finds, against a plain fold of the chunks; and what it then does."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom.engine.declare.options import Retry
from loom.engine.declare.standing import Room
from loom.engine.run.history import History, plan
from loom.model.chunk import Batch, Chunk, Page
from loom.model.errors import Damaged, ErrorInfo
from loom.model.parts import Usage
from loom.model.retraction import surviving
from loom.wire.json import decode_batch, make_batch

CONTINUE = Retry(mode="continue")
RESTART = Retry(mode="restart")


def start(attempt: int, kept: int = 0, error: ErrorInfo | None = None) -> Chunk[Any]:
    return Chunk("start", {"attempt": attempt, "kept_through": kept}, error=error)


def pages(chunks: Sequence[Chunk[Any]], cuts: Sequence[int]) -> list[Page]:
    """`chunks` as a log, cut into batches behind the seqs `cuts`, a page a batch. A start begins an epoch."""
    found, epoch = [], 0
    edges = sorted({0, *cuts, len(chunks)})
    for first, last in itertools.pairwise(edges):
        if chunks[first].type == "start":
            epoch += 1
        batch = make_batch(epoch, first + 1, chunks[first:last])
        found.append(Page((batch,), batch.cursor, last == len(chunks), False))
    return found


def folded(chunks: Sequence[Chunk[Any]], cuts: Sequence[int] = (), *, keep: bool = True, room: int = 100) -> History:
    history = History(keep=keep, room=Room(room))
    for page in pages(chunks, cuts):
        history.add(page)
    return history


def standing(batches: Iterable[Batch]) -> list[tuple[int, Any]]:
    return [(chunk.seq, chunk.data) for batch in batches for chunk in decode_batch(batch)]


LOG = [
    start(1),
    Chunk("data", "a"),
    Chunk("data", "b"),
    start(2, kept=2),
    Chunk("data", "c"),
    start(3, kept=5, error=ErrorInfo("run_failed", "x")),
    Chunk("data", "d"),
]


@pytest.mark.parametrize("cuts", [(), (1, 3, 5), (2, 4, 6), (1, 2, 3, 4, 5, 6)])
def test_what_stands_does_not_depend_on_how_it_was_written_together(cuts: Sequence[int]) -> None:
    history = folded(LOG, cuts)
    assert standing(history.standing) == [(2, "a"), (5, "c"), (7, "d")]
    assert history.said


def test_a_start_without_kept_through_takes_everything_back() -> None:
    history = folded([*LOG, Chunk("start", {"attempt": 4})])
    assert not history.standing
    assert history.said, "it was said, taken back or not"


def test_without_keep_only_the_facts_are_kept() -> None:
    history = folded(LOG, (3,), keep=False)
    assert (len(history.standing), history.said) == (0, True)


def test_the_last_usage_counts() -> None:
    one, two = Usage(1, 2, 3), Usage(4, 5, 6)
    over: Chunk[Any] = Chunk("start", {}, error=ErrorInfo("start_over", ""), usage=one)
    history = folded([start(1), over, Chunk("start", {}, usage=two), start(4)])
    assert history.usage == two
    assert folded(LOG).usage is None


def test_starts_alone_say_nothing() -> None:
    assert not folded([start(1), start(2), start(3)]).said


def test_a_trimmed_log_is_folded_from_where_it_begins() -> None:
    history = History(keep=True, room=Room())
    batch = make_batch(1, 11, [Chunk("data", "k"), start(2, kept=11), Chunk("data", "m")])
    history.add(Page((batch,), batch.cursor, True, False))
    assert standing(history.standing) == [(11, "k"), (13, "m")]


@pytest.mark.parametrize(
    "line", [b"not json", b'{"type":"start","data":', b'{"typ":1}', b"\xff", b"", b'{"type":"data"}\n{"type":"data"}']
)
def test_a_line_that_cannot_be_read_is_damage(line: bytes) -> None:
    batch = Batch(1, 4, 5, b'{"type":"data","data":1}\n' + line + b"\n")
    with pytest.raises(Damaged) as raised:
        History(keep=True, room=Room()).add(Page((batch,), batch.cursor, True, False))
    assert raised.value.details == {"seq": 4}


@st.composite
def logs(draw: st.DrawFn) -> list[Chunk[Any]]:
    chunks = [start(1)]
    for attempt in range(2, 2 + draw(st.integers(0, 4))):
        chunks += [Chunk("data", f"{attempt}.{n}") for n in range(draw(st.integers(0, 4)))]
        chunks.append(start(attempt, kept=draw(st.integers(0, len(chunks)))))
    return chunks + [Chunk("data", n) for n in range(draw(st.integers(0, 3)))]


@given(logs(), st.lists(st.integers(1, 30)), st.integers(0, 200))
def test_it_is_the_fold_that_readers_make(chunks: list[Chunk[Any]], cuts: list[int], room: int) -> None:
    placed = [decode_batch(make_batch(1, seq, [chunk]))[0] for seq, chunk in enumerate(chunks, 1)]
    wanted = [(chunk.seq, chunk.data) for chunk in surviving(placed)]
    history = folded(chunks, [cut for cut in cuts if cut < len(chunks)], room=room)
    assert standing(history.standing) == wanted


# --- the plan --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("facts", "act", "kept"),
    [
        ({}, "go", 0),
        ({"tail": 1}, "go", 0),  # it said only `start`: simply tried again
        ({"tail": 5, "said": True}, "lost", 0),
        ({"tail": 5, "said": True, "failed": True}, "go", 0),
        ({"tail": 5, "said": True, "retry": RESTART}, "go", 0),
        ({"tail": 5, "said": True, "retry": CONTINUE}, "go", 5),
        ({"tail": 5, "said": False, "retry": CONTINUE}, "go", 5),
        ({"tail": 5, "said": True, "retry": CONTINUE, "failed": True, "starts_over": True}, "go", 0),
    ],
)
def test_what_follows(facts: dict[str, Any], act: str, kept: int) -> None:
    given_facts = {"tail": 0, "said": False, "failed": False, "retry": None, **facts}
    verdict = plan(**given_facts)
    assert (verdict.act, verdict.kept_through) == (act, kept)
    assert bool(verdict.reason) is (act == "lost")

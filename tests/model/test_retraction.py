"""What later chunks take back of earlier ones: a table that the page's twin runs too, and a naive model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom.model.chunk import Chunk
from loom.model.errors import RemoteProtocolError
from loom.model.grammar import is_output
from loom.model.retraction import MARKERS, Fold, Retraction, kept_through, surviving

CASES: list[dict[str, Any]] = json.loads((Path(__file__).parent / "restarts.json").read_text())


def chunks_of(rows: list[Any]) -> list[Chunk[Any]]:
    return [Chunk(type, data, source=source, seq=seq) for seq, (type, source, data) in enumerate(rows, 1)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_the_table(case: dict[str, Any]) -> None:
    assert [chunk.seq for chunk in surviving(chunks_of(case["chunks"]))] == case["standing"]


def start(kept: Any = None, seq: int = 1) -> Chunk[Any]:
    return Chunk("start", {} if kept is None else {"kept_through": kept}, seq=seq)


def test_kept_through() -> None:
    assert kept_through(Chunk("data", {"kept_through": 3})) is None
    assert kept_through(start(3)) == 3
    assert kept_through(start()) == 0
    assert kept_through(Chunk("start")) == 0


@pytest.mark.parametrize("kept", ["3", None, [3], -1, 1.5, True])
def test_kept_through_refuses_what_is_no_seq(kept: Any) -> None:
    with pytest.raises(RemoteProtocolError, match="kept_through"):
        kept_through(Chunk("start", {"kept_through": kept}))
    with pytest.raises(RemoteProtocolError, match="kept_through"):
        Fold().feed(Chunk("start", {"kept_through": kept}, seq=2))


@pytest.mark.parametrize("data", [None, 3, "x", [2], {"attempt": "2"}, {"attempt": None}, {"attempt": 1.5}])
def test_actions_say_what_they_like(data: Any) -> None:
    assert Fold().feed(Chunk("action-start", data, source="s", seq=5)) is None
    assert Fold().feed(Chunk("action-complete", data, source="s", seq=5)) is None


SOURCES = st.sampled_from([None, "s", "s/t", "s/t/u", "s~2", "t"])
ROWS = st.lists(
    st.tuples(st.just("data"), SOURCES, st.none())
    | st.tuples(st.sampled_from(["action-start", "action-complete", "action-error"]), SOURCES, st.none())
    | st.tuples(st.just("start"), st.none(), st.integers(0, 12).map(lambda kept: {"kept_through": kept})),
    max_size=30,
)


def naive(chunks: list[Chunk[Any]]) -> list[int]:
    """The rule as prose has it, with everything kept."""
    stands: list[Chunk[Any]] = []
    steps: list[Chunk[Any]] = []  # of them, the actions' chunks that count
    for chunk in chunks:
        if chunk.type == "start":
            kept = chunk.data["kept_through"]
            stands = [each for each in stands if each.seq <= kept]
            steps = [each for each in steps if each.seq <= kept]
        elif chunk.type == "action-start" and chunk.source is not None:
            began = newest(steps, "action-start", chunk.source)
            if began and not newest(steps, "action-complete", chunk.source) > began:
                done = [
                    each.source
                    for each in steps
                    if each.type == "action-complete" and below(each.source, chunk.source)
                    if each.seq > newest(steps, "action-start", each.source or "") > 0
                ]
                gone = [
                    each
                    for each in stands
                    if each.seq >= began and (each.source == chunk.source or below(each.source, chunk.source))
                    if not any(each.source == step or below(each.source, step) for step in done)
                ]
                stands = [each for each in stands if each not in gone]
                steps = [each for each in steps if not below(each.source, chunk.source) or each.source in done]
        if chunk.type in ("action-start", "action-complete") and chunk.source is not None:
            steps.append(chunk)
        if is_output(chunk.type):
            stands.append(chunk)
    return [each.seq for each in stands]


def newest(chunks: list[Chunk[Any]], type: str, source: str) -> int:
    return max((each.seq for each in chunks if each.type == type and each.source == source), default=0)


def below(source: str | None, step: str | None) -> bool:
    return source is not None and step is not None and source.startswith(step + "/")


@given(ROWS)
def test_the_fold_is_the_naive_rule(rows: list[Any]) -> None:
    chunks = chunks_of(rows)
    assert [chunk.seq for chunk in surviving(chunks)] == naive(chunks)


@given(ROWS)
def test_a_reader_that_keeps_only_how_far_it_is_learns_whether_it_lost_anything(rows: list[Any]) -> None:
    """`covers_any` of the newest seqs says the same as `covers` of all that was read and still stood."""
    fold, newest_seqs, read = Fold(), dict[str | None, int](), list[Chunk[Any]]()
    for chunk in chunks_of(rows):
        retraction = fold.feed(chunk) if chunk.type in MARKERS else None
        if retraction is not None:
            assert retraction.covers_any(newest_seqs) == any(retraction.covers(c.seq, c.source) for c in read)
        if chunk.type == "data":
            newest_seqs[chunk.source] = chunk.seq
            read.append(chunk)


@given(ROWS, st.integers(0, 30))
def test_cut_deletes_what_is_covered(rows: list[Any], after: int) -> None:
    for retraction in (Retraction(after), Retraction(after, after + 7, "s", ("s/t",))):
        kept = chunks_of(rows)
        expected = [each for each in kept if not retraction.covers(each.seq, each.source)]
        retraction.cut(kept, lambda chunk: (chunk.seq, chunk.source))
        assert kept == expected

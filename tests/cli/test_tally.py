"""Counting what stands, what was taken back, and how fast it came."""

from __future__ import annotations

import pytest

from loom import Chunk, Progress, Usage
from loom.cli.tally import Tally, answer_in, duration, used


def said(tally: Tally, *data: object, first: int = 2, now: float = 0.0) -> None:
    for seq, value in enumerate(data, first):
        tally.take(Chunk("data", value, seq=seq), now)


def start(attempt: int, kept: int, seq: int) -> Chunk[object]:
    return Chunk("start", {"attempt": attempt, "kept_through": kept}, seq=seq)


def test_text_counts_as_tokens_and_anything_else_as_chunks() -> None:
    tally = Tally(0.0)
    said(tally, "a")
    assert tally.amount() == "1 token"
    said(tally, *"b" * 1499, first=3)
    assert tally.amount() == "1,500 tokens"
    said(tally, {"x": 1}, first=2000)
    assert tally.amount() == "1,501 chunks"


@pytest.mark.parametrize(
    ("result", "text"),
    [
        ("a", "a"), ({"part": "text", "text": "a"}, "a"), ([{"part": "text", "text": "a"}, "b"], "ab"),
        ([{"part": "refusal", "text": "no"}, {"part": "finish", "reason": "stop"}], "no"),
        ({"part": "of the whole"}, None), ([{"part": "text", "text": "a"}, 1], None), ([], None), (None, None),
        ({"part": "text", "text": 3}, None), ([1], None),
    ],
)  # fmt: skip
def test_an_answer_in_parts_is_its_text(result: object, text: str | None) -> None:
    assert answer_in(result) == text


def test_what_was_counted_is_told() -> None:
    assert used(None) == used(Usage(0, 0, calls=2, uncounted=2)) == ""
    assert used(Usage(1200, 40, calls=2)) == "1,200 tokens in, 40 out"
    assert used(Usage(12, 40, calls=2, uncounted=1)) == "at least 12 tokens in, 40 out"


def test_a_restart_takes_off_what_it_takes_back() -> None:
    tally = Tally(0.0)
    assert tally.take(start(1, 0, 1), 0.0) == 0
    said(tally, "a", "b", {"c": 1})
    assert tally.take(start(2, 2, 5), 0.0) == 2
    assert (tally.count, tally.attempt) == (1, 2)
    said(tally, "d", first=6)
    assert tally.take(start(3, 7, 7), 0.0) == 0
    assert tally.take(start(4, 0, 8), 0.0) == 2
    assert tally.silent


def test_progress_is_the_last_one_told_and_no_output() -> None:
    tally = Tally(0.0)
    tally.take(Chunk("progress", progress=Progress(1, 2), seq=1), 0.0)
    tally.take(Chunk("progress", progress=Progress(2, 2), seq=2), 0.0)
    assert tally.progress == Progress(2, 2)
    assert (tally.count, tally.silent) == (0, False)


def test_the_rate_is_that_of_the_last_seconds() -> None:
    tally = Tally(0.0)
    assert tally.rate(0.0) is None
    for tenth in range(1, 101):
        said(tally, "x", first=tenth, now=tenth / 10)
    assert tally.rate(10.0) == pytest.approx(10, rel=0.1)
    for tenth in range(101, 201):
        said(tally, *"xxx", first=3 * tenth, now=tenth / 10)
    assert tally.rate(20.0) == pytest.approx(30, rel=0.1)
    assert tally.rate(80.0) == pytest.approx(0, abs=1)


def test_time_is_ours_or_the_runs_own() -> None:
    ours = Tally(100.0)
    assert ours.elapsed(103.2) == "3.2 s"
    ours.take(Chunk("complete", seq=9, time=1.0), 104.0)
    assert ours.elapsed(200.0) == "4.0 s"
    theirs = Tally(100.0)
    theirs.began(5000.0, wall=5060.0, now=100.0)
    assert theirs.elapsed(100.0) == "60.0 s"
    theirs.take(Chunk("complete", seq=9, time=5007.0), 101.0)
    assert theirs.elapsed(200.0) == "7.0 s"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0.0 s"), (3.21, "3.2 s"), (99.9, "99.9 s"), (99.96, "1 min 40 s"), (125, "2 min 05 s"),
        (3720, "1 h 02 min"), (200_000, "2 days"),
    ],
)  # fmt: skip
def test_durations_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text

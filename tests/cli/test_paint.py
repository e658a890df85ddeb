"""The live line fits, whatever there is to say and however narrow the terminal is."""

from __future__ import annotations

import io
import os
import re

import pytest
from rich.cells import cell_len

from loom import Chunk, Progress
from loom.cli import paint
from loom.cli.paint import Marks, Painter, cut
from loom.cli.tally import Tally


@pytest.fixture
def painter() -> Painter:
    return Painter(io.TextIOWrapper(io.BytesIO(), "utf-8"))


def resize(monkeypatch: pytest.MonkeyPatch, columns: int, lines: int = 24) -> None:
    monkeypatch.setattr(paint, "size_of", lambda file: os.terminal_size((columns, lines)))


def tally_of(count: int, progress: Progress | None = None) -> Tally:
    tally = Tally(0.0)
    for seq in range(1, count + 1):
        tally.take(Chunk("data", "x", seq=seq), seq / 10)
    if progress is not None:
        tally.take(Chunk("progress", progress=progress, seq=count + 1), count / 10)
    return tally


def test_before_the_first_chunk_it_waits(painter: Painter) -> None:
    tally = Tally(0.0)
    assert re.fullmatch(r". waiting for a worker · 1\.2 s", painter.live(tally, 1.2))
    tally.take(Chunk("start", {"attempt": 1, "kept_through": 0}, seq=1), 1.5)
    assert re.fullmatch(r". waiting for the first chunk · 2\.0 s", painter.live(tally, 2.0))


def test_it_tells_how_much_how_fast_how_long(painter: Painter) -> None:
    assert re.fullmatch(r". 50 tokens · 9\.\d/s · 5\.2 s", painter.live(tally_of(50), 5.2))


def test_silence_is_told(painter: Painter) -> None:
    assert re.fullmatch(r". 50 tokens · silent for 15\.0 s · 20\.0 s", painter.live(tally_of(50), 20.0))


def test_a_note_stands_for_the_counts(painter: Painter) -> None:
    assert re.fullmatch(r". cancelling", painter.live(tally_of(50), 5.2, "cancelling"))


@pytest.mark.parametrize(
    "progress",
    [
        None,
        *(
            Progress(3, total, message)
            for total in (None, 10)
            for message in (None, "drafting", "a very long message " * 10, "日本語" * 20, "two\nlines\x1b[2J")
        ),
    ],
    ids=lambda progress: repr(progress)[:60],
)
def test_it_is_one_line_shorter_than_the_terminal(
    painter: Painter, monkeypatch: pytest.MonkeyPatch, progress: Progress | None
) -> None:
    for columns in range(12, 140):
        resize(monkeypatch, columns)
        line = painter.live(tally_of(50, progress), 5.2)
        assert "\n" not in line
        assert "\x1b" not in line
        assert 0 < cell_len(line) < columns
        assert line.endswith("…" if columns <= 27 else "5.2 s")


@pytest.mark.parametrize(("current", "share"), [(0, "0%"), (3, "30%"), (10, "100%"), (11, "100%"), (-1, "0%")])
def test_the_bar_shows_what_is_done(painter: Painter, current: float, share: str) -> None:
    line = painter.live(tally_of(1, Progress(current, 10, "word")), 0.2)
    assert f" {share} word " in line


def test_there_is_none_where_there_is_no_room(painter: Painter, monkeypatch: pytest.MonkeyPatch) -> None:
    resize(monkeypatch, 80, lines=2)
    assert painter.live(tally_of(1), 0.2) == ""
    resize(monkeypatch, 11)
    assert painter.live(tally_of(1), 0.2) == ""


def test_a_terminal_without_unicode_gets_signs_that_it_has() -> None:
    assert Marks.of("ANSI_X3.4-1968").good == "OK"
    ascii_only = Painter(io.TextIOWrapper(io.BytesIO(), "ascii"))
    assert ascii_only.live(tally_of(50, Progress(3, 10, "word")), 5.2).isascii()


@pytest.mark.parametrize(
    ("text", "shown"), [("short", "short"), ("x" * 11, "x" * 9 + "…"), ("日本語日本語", "日本語日 …")]
)
def test_what_is_too_long_is_cut_to_cells(text: str, shown: str) -> None:
    assert cut(text, 10) == shown

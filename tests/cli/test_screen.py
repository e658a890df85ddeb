"""Whatever is written above the live line stands as on a terminal that has none."""

from __future__ import annotations

import random

import pyte

from loom.cli.screen import Screen

from .kit import Faithful

COLUMNS, LINES = 20, 8
PIECES = ["a", "word ", "\n", "日本", "x" * 7, "ab\ncd", "é", "x" * 19, "漢" * 10, "y" * 20, "\n\n", "🙂"]


class Shown:
    """A terminal, fed by a `Screen` or directly."""

    def __init__(self) -> None:
        self.screen = Faithful(COLUMNS, LINES, history=1000)
        self.stream = pyte.Stream(self.screen)

    def feed(self, text: str) -> None:
        self.stream.feed(text.replace("\n", "\r\n"))

    @property
    def rows(self) -> list[str]:
        top = ["".join(line[x].data for x in range(COLUMNS)) for line in self.screen.history.top]
        return [row.rstrip() for row in [*top, *self.screen.display]]


def test_text_stands_as_if_it_came_at_once_and_there_was_no_live_line() -> None:
    for seed in range(100):
        dice = random.Random(seed)
        pieces = ["".join(dice.choices(PIECES, k=dice.randrange(0, 4))) for _ in range(dice.randrange(1, 60))]
        whole, ours = Shown(), Shown()
        at_once, screen = Screen(lambda: COLUMNS), Screen(lambda: COLUMNS)
        for number, piece in enumerate(pieces):
            screen.add(piece)
            if dice.random() < 0.7:
                ours.feed(screen.flush(f"live {number}" if dice.random() < 0.9 else ""))
        ours.feed(screen.flush(""))
        at_once.add("".join(pieces))
        whole.feed(at_once.flush(""))
        assert stripped(ours.rows) == stripped(whole.rows), f"seed {seed}"


def test_all_of_the_text_is_there_and_words_that_fit_are_whole() -> None:
    for seed in range(100):
        dice = random.Random(seed)
        text = "".join(dice.choices(PIECES, k=dice.randrange(1, 100)))
        shown, screen = Shown(), Screen(lambda: COLUMNS)
        screen.add(text)
        shown.feed(screen.flush(""))
        seen = "\n".join(shown.rows)
        assert "".join(seen.split()) == "".join(text.split()), f"seed {seed}"
        assert {word for word in text.split() if word.isascii() and len(word) < COLUMNS} <= set(seen.split())


def stripped(rows: list[str]) -> list[str]:
    """Without the empty rows at the end: making room for a live line may have scrolled some in."""
    while rows and not rows[-1]:
        rows.pop()
    return rows


def test_the_live_line_is_below_the_text_and_the_cursor_behind_it() -> None:
    shown, screen = Shown(), Screen(lambda: COLUMNS)
    screen.add("one two")
    shown.feed(screen.flush("live"))
    assert shown.rows[:3] == ["one two", "live", ""]
    assert (shown.screen.cursor.x, shown.screen.cursor.y) == (7, 0)
    screen.add(" three\nfour")
    shown.feed(screen.flush("LIVE"))
    assert shown.rows[:4] == ["one two three", "four", "LIVE", ""]


def test_at_the_bottom_the_text_scrolls_and_the_live_line_stays_under_it() -> None:
    shown, screen = Shown(), Screen(lambda: COLUMNS)
    for number in range(20):
        screen.add(f"\nline {number}")
        shown.feed(screen.flush("live"))
    assert shown.rows[-3:] == ["line 18", "line 19", "live"]
    assert [row for row in shown.rows if "live" in row] == ["live"]


def test_a_word_that_turns_out_not_to_fit_is_moved_to_the_next_line() -> None:
    shown, screen = Shown(), Screen(lambda: COLUMNS)
    for token in ("The quick brown", " fo", "x", "es", " jump", " over"):
        screen.add(token)
        shown.feed(screen.flush("live"))
    assert shown.rows[:3] == ["The quick brown", "foxes jump over", "live"]


def test_a_word_of_more_than_a_line_is_broken_by_the_terminal_and_its_line_end_is_not_doubled() -> None:
    shown, screen = Shown(), Screen(lambda: COLUMNS)
    screen.add("x" * COLUMNS)
    shown.feed(screen.flush("live"))
    assert shown.rows[:3] == ["x" * COLUMNS, "", "live"]  # the next character stands before the live line
    screen.add("\nnext")
    shown.feed(screen.flush("live"))
    assert shown.rows[:4] == ["x" * COLUMNS, "next", "live", ""]


def test_wide_characters_break_anywhere() -> None:
    shown, screen = Shown(), Screen(lambda: COLUMNS)
    for character in "日本語の文章には空白がありません":
        screen.add(character)
        shown.feed(screen.flush("live"))
    assert [row.replace(" ", "") for row in shown.rows[:3]] == ["日本語の文章には空", "白がありません", "live"]


def test_tabs_are_blanks_up_to_the_next_stop() -> None:
    shown, screen = Shown(), Screen(lambda: COLUMNS)
    screen.add("a\tb\t\tc")
    shown.feed(screen.flush("live"))
    assert shown.rows[:3] == ["a       b", "c", "live"]


def test_combining_characters_take_no_room() -> None:
    shown, screen = Shown(), Screen(lambda: COLUMNS)
    screen.add("e\u0301" * 10)
    screen.add("x" * 10)
    shown.feed(screen.flush("live"))
    assert shown.rows[:2] == ["é" * 10 + "x" * 10, ""]


def test_where_a_line_begins_the_live_line_is_it() -> None:
    shown, screen = Shown(), Screen(lambda: COLUMNS)
    shown.feed(screen.flush("live"))
    assert shown.rows[:2] == ["live", ""]
    screen.add("one\n")
    shown.feed(screen.flush("live 2"))
    assert shown.rows[:3] == ["one", "live 2", ""]
    screen.add("two")
    shown.feed(screen.flush("live 3"))
    assert shown.rows[:4] == ["one", "two", "live 3", ""]


def test_nothing_is_written_when_nothing_changed() -> None:
    screen = Screen(lambda: COLUMNS)
    screen.add("text")
    assert screen.flush("live")
    assert screen.flush("live") == ""
    assert screen.flush("live 2") != ""


def test_a_line_of_its_own_begins_a_line() -> None:
    shown, screen = Shown(), Screen(lambda: COLUMNS)
    screen.add("text")
    screen.add_line("own", painted="\x1b[31mown\x1b[0m")
    assert screen.fresh
    shown.feed(screen.flush(""))
    assert shown.rows[:3] == ["text", "own", ""]


def test_a_terminal_that_became_narrower_gets_no_text_in_the_wrong_place() -> None:
    width = COLUMNS
    screen = Screen(lambda: width)
    screen.add("x" * 15)
    screen.flush("live")
    width = 15
    screen.add("y" * 15)
    assert screen.flush("").endswith("y \b")  # 30 cells: a full line at the new width

"""Cursors and epochs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom.model.cursor import EPOCH_DIGITS, Cursor, attempt_of, cursor_at, make_epoch
from loom.model.errors import UsageError


@given(st.integers(0, 10**18 - 1), st.integers(1, 10**18 - 1))
def test_text_is_parsed_back(epoch: int, seq: int) -> None:
    assert Cursor.parse(str(Cursor(epoch, seq))) == Cursor(epoch, seq)


def test_text_form() -> None:
    assert str(Cursor(300000042, 17)) == "300000042-17"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "-",
        "1-",
        "-1",
        "1-0",
        "01-1",
        "1-01",
        "1-1-1",
        "1--1",
        "+1-1",
        " 1-1",
        "1-1 ",
        "1-1\n",
        "1_0-1",
        "\u0661-1",
        "1-\u0661",
        "a-b",
        "1.0-1",
        "9" * 19 + "-1",
        "1-" + "9" * 19,
        "9" * 100_000,
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not a cursor") as caught:
        Cursor.parse(text)
    assert caught.value.details == {"field": "after"}
    assert len(str(caught.value)) < 200
    with pytest.raises(UsageError, match=r"^--from: not a cursor") as caught:
        Cursor.parse(text, "--from")
    assert caught.value.details == {"field": "--from"}


@given(st.integers(0, 10**9), st.integers(0, 10**12))
def test_an_epoch_carries_its_attempt(attempt: int, digits: int) -> None:
    assert attempt_of(make_epoch(attempt, digits)) == attempt


@given(st.integers(0, 10**6), st.integers(0, EPOCH_DIGITS - 1), st.integers(0, EPOCH_DIGITS - 1))
def test_a_later_attempts_epoch_is_larger(attempt: int, one: int, other: int) -> None:
    assert make_epoch(attempt, one) < make_epoch(attempt + 1, other)


def test_cursor_at_finds_the_epoch_that_wrote_a_seq() -> None:
    epochs = [(10, 1), (20, 4), (30, 4), (40, 6)]
    assert cursor_at(epochs, 0) is None
    assert [cursor_at(epochs, seq) for seq in (1, 3, 4, 5, 6, 9)] == [
        Cursor(10, 1),
        Cursor(10, 3),
        Cursor(30, 4),
        Cursor(30, 5),
        Cursor(40, 6),
        Cursor(40, 9),
    ]

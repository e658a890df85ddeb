"""Text from elsewhere stays on its line of a log."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom.model.text import BIDI_CONTROLS, escaped


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, 日本 é 🙂\ttab", "plain, 日本 é 🙂\ttab"),
        ("one\r\ntwo\u2028three\x85", "one\\r\\ntwo\\u2028three\\x85"),
        ("\x1b[2J\x9b31m\x7f\a", "\\x1b[2J\\x9b31m\\x7f\\x07"),
        ("\u202eabc\u2069", "\\u202eabc\\u2069"),
        ("\ud83d", "\\ud83d"),
    ],
)
def test_what_is_shown(text: str, shown: str) -> None:
    assert escaped(text) == shown


@given(st.text(st.characters()))
def test_it_is_one_line_that_every_terminal_takes(text: str) -> None:
    shown = escaped(text)
    assert len(shown.splitlines()) <= 1
    assert not {unicodedata.category(char) for char in shown} & {"Cs", "Zl", "Zp"}
    assert all(char == "\t" or unicodedata.category(char) != "Cc" for char in shown)
    assert not any(char in BIDI_CONTROLS for char in shown)
    shown.encode()


def test_all_bidirectional_controls_are_known() -> None:
    kinds = {"LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI"}
    marks = {"\u200e", "\u200f", "\u061c"}  # LRM, RLM, ALM
    assert set(BIDI_CONTROLS) == marks | {chr(c) for c in range(0x110000) if unicodedata.bidirectional(chr(c)) in kinds}

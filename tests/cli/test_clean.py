"""What comes from elsewhere cannot steer a terminal."""

from __future__ import annotations

import pytest

from loom.cli.clean import clean


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("one\r\ntwo\rthree", "one\ntwo\nthree"),
        ("\x1b[31mred\x1b[0m", "␛[31mred␛[0m"),
        ("bell\a tab\t", "bell␇ tab\t"),
        ("\x7f\x9b31m", "␡\ufffd31m"),
        ("user\u202etxt.exe\u2069", "user\ufffdtxt.exe\ufffd"),
        ("one\u2028two\u2029three", "one\ntwo\nthree"),
        ("日本 é 🙂", "日本 é 🙂"),
    ],
)
def test_what_could_steer_a_terminal_is_shown_instead(text: str, shown: str) -> None:
    assert clean(text) == shown

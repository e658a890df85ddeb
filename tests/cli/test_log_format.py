"""No text from elsewhere begins a line of our log, or steers the terminal that shows it."""

from __future__ import annotations

import logging
import re
import sys

from hypothesis import given
from hypothesis import strategies as st

from loom.cli.log_format import LineFormatter, indented

FORGED = "x\n2026-11-30 00:00:00,000 ERROR loom.server: FORGED\x1b[2J\x1b]0;title\a\r\u2028\u202e\x9b"

texts = st.text(st.sampled_from("ab\n\r\x1b\x85\u2028\u202e\x0b\x0c\x1c\ud800 ")) | st.just(FORGED)


def record(message: str, error: Exception | None = None, stack: str | None = None) -> logging.LogRecord:
    try:
        raise error or ValueError
    except Exception:
        about = sys.exc_info() if error is not None else None
    made = logging.LogRecord("loom.worker", logging.ERROR, __file__, 1, "run %s failed: %s", ("r", message), about)
    made.stack_info = stack
    return made


def shown(record: logging.LogRecord) -> list[str]:
    text = LineFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s").format(record)
    text.encode()
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e]", text)
    return text.split("\n")


@given(texts, texts, texts)
def test_one_record_is_one_line_and_indented_ones(message: str, raised: str, note: str) -> None:
    error = ValueError(raised)
    error.add_note(note)
    error.__cause__ = ExceptionGroup(raised, [KeyError(message)])
    first, *others = shown(record(message, error, stack=f"Stack\n{note}"))
    assert re.match(r"\d{4}-\d\d-\d\d .* ERROR loom\.worker: run r failed: ", first)
    assert others
    assert all(line.startswith("    ") for line in others)


def test_a_plain_traceback_can_be_read() -> None:
    first, *others = shown(record("no", ValueError("because")))
    assert first.endswith("loom.worker: run r failed: no")
    assert others[0] == "    Traceback (most recent call last):"
    assert others[-1] == "    ValueError: because"


def test_lines_of_data_are_told_from_those_of_records() -> None:
    assert indented("a\nb\x1b") == "    a\n    b\\x1b"

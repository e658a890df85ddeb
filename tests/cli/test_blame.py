"""Every error is one line with a code, an exit code of the table, and a hint where there is one."""

from __future__ import annotations

import pytest

import loom
from loom.cli.blame import line_of, report
from loom.model.errors import CODES, LoomError, class_of


@pytest.mark.parametrize("code", CODES)
def test_every_code_exits_as_the_table_says(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    error = class_of(code)("what happened", code=code)
    assert report(error) == CODES[code].exit
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"error: what happened ({code})"
    assert all(line.startswith("hint: ") for line in lines[1:])
    assert len(lines) <= 2


def test_a_producers_own_code_counts_as_a_failed_run() -> None:
    assert report(LoomError("no more stock", code="out_of_stock")) == 1


def test_a_message_of_many_lines_becomes_one() -> None:
    assert line_of(loom.RunFailed("one\n  two\tthree")) == "error: one two three (run_failed)"
    assert line_of(loom.RunFailed()) == "error: RunFailed (run_failed)"


def test_what_is_no_error_of_ours_is_internal(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(ValueError("bad")) == 70
    assert capsys.readouterr().err.startswith("error: ValueError: bad (internal)\nhint: LOOM_DEBUG=1")


def test_an_expired_cursor_names_where_to_begin(capsys: pytest.CaptureFixture[str]) -> None:
    report(loom.CursorExpired("gone", details={"earliest": "100-5"}))
    assert "hint: begin with --after 100-5" in capsys.readouterr().err
    report(loom.CursorExpired("gone", details={"earliest": None}))
    assert "leave out --after" in capsys.readouterr().err


def test_debugging_prints_the_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("LOOM_DEBUG", "1")
    report(ValueError("bad"))
    assert "ValueError: bad\nerror: ValueError: bad (internal)" in capsys.readouterr().err

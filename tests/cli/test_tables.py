"""Lists are cut to the terminal at their last column, and whole in a pipe."""

from __future__ import annotations

import pytest

from loom.cli import tables
from loom.cli.tables import print_rows

HEADER = ("ACTOR", "INPUT", "DESCRIPTION")
ROWS = [
    ("chat-agent", "prompt", "Answers a prompt with the model that the environment names, else with a small one."),
    ("count", "n", "Short."),
]


@pytest.fixture
def columns(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Standard output is a terminal of so many columns."""
    monkeypatch.setattr(tables, "is_terminal", lambda file: True)
    monkeypatch.setenv("COLUMNS", str(request.param))
    return int(request.param)


@pytest.mark.parametrize("columns", [32, 40, 80], indirect=True)
def test_the_last_column_gives_way(columns: int, capsys: pytest.CaptureFixture[str]) -> None:
    print_rows("table", HEADER, ROWS, [])
    header, chat, count = capsys.readouterr().out.splitlines()
    assert chat == f"chat-agent  prompt  {ROWS[0][2]}"[: columns - 3] + "…"
    assert len(header) < columns
    assert count == "count       n       Short."


@pytest.mark.parametrize("columns", [10, 20], indirect=True)
def test_no_line_is_longer_than_the_terminal(columns: int, capsys: pytest.CaptureFixture[str]) -> None:
    print_rows("table", HEADER, ROWS, [])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert all(len(line) <= columns for line in lines)


@pytest.mark.parametrize("columns", [80], indirect=True)
def test_an_empty_list_is_its_header(columns: int, capsys: pytest.CaptureFixture[str]) -> None:
    print_rows("table", HEADER, [], [])
    assert capsys.readouterr().out.split() == list(HEADER)


def test_a_pipe_gets_everything(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows("table", HEADER, ROWS, [])
    assert ROWS[0][2] in capsys.readouterr().out


QUEUE = ("RUN", "QUEUE", "KEY", "CRASHES", "WORKER")
USUAL = {"QUEUE": "default", "KEY": "", "CRASHES": "0", "WORKER": ""}
NAME = "1a1ff83bbbf7cf6fed04bc94aed"


@pytest.mark.parametrize("columns", [40], indirect=True)
def test_columns_that_tell_nothing_go_first(columns: int, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [(NAME, "default", "", "0", ""), (NAME, "default", "k", "0", "")]
    print_rows("table", QUEUE, rows, [], usual=USUAL)
    assert capsys.readouterr().out.splitlines() == ["RUN                          KEY", NAME, f"{NAME}  k"]


@pytest.mark.parametrize("columns", [80], indirect=True)
def test_columns_that_have_room_stay(columns: int, capsys: pytest.CaptureFixture[str]) -> None:
    print_rows("table", QUEUE, [("r", "default", "", "0", "")], [], usual=USUAL)
    assert capsys.readouterr().out.split() == [*QUEUE, "r", "default", "0"]


@pytest.mark.parametrize("columns", [80], indirect=True)
def test_names_are_whole_however_long_a_key_is(columns: int, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [(NAME, "slow", "k" * 128, "1", "4711-5c0de1a7"), (NAME, "default", "k", "0", "")]
    print_rows("table", QUEUE, rows, [], usual=USUAL)
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split() == list(QUEUE)
    assert all(line.startswith(f"{NAME}  ") and len(line) <= columns for line in lines)
    assert lines[0].split()[1] == "slow"

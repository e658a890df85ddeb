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

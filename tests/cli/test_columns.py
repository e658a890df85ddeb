"""Tables on a terminal: headers and short values are whole, long ones give way, names keep both ends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom.cli.columns import GAP, fit, shortened

from .kit import Loom

HEADER = ("RUN", "ACTOR", "STATE", "CHUNKS", "TOOK", "STARTED")
CELLS = st.tuples(
    st.integers(1, 128), st.integers(1, 128), st.sampled_from([6, 7, 9]), st.integers(1, 7), st.integers(0, 11),
    st.integers(6, 11),
).map(lambda lengths: ["x" * length for length in lengths])  # fmt: skip


@given(st.integers(72, 300), st.lists(CELLS, max_size=4))
def test_headers_and_short_values_are_whole_from_72_columns_on(room: int, rows: list[list[str]]) -> None:
    widths = fit(room, HEADER, rows, {}, ())
    assert list(widths) == list(range(6))
    assert sum(widths.values()) + GAP * 5 <= room
    for i, width in widths.items():
        assert width >= len(HEADER[i])
        assert all(len(row[i]) <= max(width, 12) for row in rows) or width >= 12


@given(st.integers(0, 300), st.lists(CELLS, max_size=4), st.booleans())
def test_what_there_is_of_room_is_used(room: int, rows: list[list[str]], spares: bool) -> None:
    widths = fit(room, HEADER, rows, {}, ("STARTED", "TOOK") if spares else ())
    wanted = {i: max(len(HEADER[i]), *(len(row[i]) for row in rows), 0) for i in widths}
    taken = sum(widths.values()) + GAP * (len(widths) - 1)
    cut = [i for i in widths if widths[i] < wanted[i]]
    assert not cut or taken > room - len(widths)  # what is left could not be shared out
    assert all(widths[i] <= wanted[i] for i in widths)


@pytest.mark.parametrize(
    ("text", "width", "name", "shown"),
    [
        ("0123456789", 10, True, "0123456789"), ("0123456789a", 10, True, "01234…789a"),
        ("0123456789", 5, True, "01…89"),
        ("0123456789", 5, False, "0123…"), ("日本語日本", 5, False, "日本…"), ("ab", 1, True, "…"),
    ],
)  # fmt: skip
def test_shortened(text: str, width: int, name: bool, shown: str) -> None:
    assert shortened(text, width, name=name) == shown


@pytest.mark.parametrize("columns", [80, 100])
def test_lists_on_a_terminal(loom_command: Loom, columns: int) -> None:
    """With ids, actors and keys as long as may be: no header and no short value is cut, no line wraps."""
    loom_command("runs", "list")  # makes the folder
    names = [f"{'order-4711-' * 11}{n:05}" for n in (1, 2)]
    for name in names:
        loom_command.begin("an-actor-with-a-name-of-which-there-is-much", {"n": 1}, id=name, key="customer-" * 14)
    header, *rows = shown(loom_command, columns, "runs", "list")
    assert header.split() == ["RUN", "ACTOR", "STATE", "CHUNKS", "TOOK", "STARTED"]
    for row, name in zip(rows, reversed(names), strict=True):
        run, actor, state, chunks, *age = row.split()
        assert (run[:6], run[-4:], "…" in run) == (name[:6], name[-4:], True)
        assert (actor.startswith("an-actor"), state, chunks, " ".join(age[1:])) == (True, "queued", "0", "s ago")
    header, *rows = shown(loom_command, columns, "queue", "show")
    assert {"RUN", "ACTOR", "PLACE", "KEY"} <= set(header.split())
    assert [row.split()[2] for row in rows] == ["ready", "behind"]


def shown(loom_command: Loom, columns: int, *arguments: str) -> list[str]:
    with loom_command.terminal(*arguments, columns=columns) as terminal:
        assert terminal.wait() == 0
        return terminal.text.splitlines()

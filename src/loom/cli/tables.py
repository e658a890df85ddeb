"""Lists and single runs, for people and for programs."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Raw
from rich.console import Console
from rich.table import Table
from rich.text import Text

from loom.wire.views import RunView

from .clean import clean
from .paint import is_terminal
from .shows import compact, pretty
from .tally import duration

__all__ = ["age", "print_rows", "run_text"]

_STYLES = {
    "completed": "green",
    "failed": "red",
    "lost": "red",
    "dead": "red",
    "cancelled": "yellow",
    "running": "cyan",
}

_GAP = 2

_MOST = 4
"""A column in the middle takes at most this part of the terminal: a long key leaves room for the others."""


def print_rows(
    output: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    values: Sequence[Any],
    *,
    usual: Mapping[str, str] | None = None,
) -> None:
    """`rows` as a table, cut to the terminal, whole in a pipe; or `values` as JSON. Columns that say only what is
    `usual`, by their names, go before anything is cut."""
    match output:
        case "json":
            print(pretty(list(values)))
        case "jsonl":
            sys.stdout.write("".join(compact(value) + "\n" for value in values))
        case _:
            _print_table(header, rows, usual or {})


def _print_table(header: Sequence[str], rows: Sequence[Sequence[str]], usual: Mapping[str, str]) -> None:
    """The last column gives way when there is no room; the first, which names the row, as late as can be."""
    on_terminal = is_terminal(sys.stdout)
    console = Console(file=sys.stdout, highlight=False, width=None if on_terminal else 10_000)
    header, rows = _fitting(console.width, header, rows, usual)
    table = Table(box=None, padding=(0, _GAP, 0, 0), header_style="bold", show_edge=False)
    table.add_column(header[0], no_wrap=True, min_width=_named(console.width, rows))
    for name in header[1:-1]:
        table.add_column(name, no_wrap=True, max_width=max(console.width // _MOST, len(name)))
    table.add_column(header[-1], no_wrap=on_terminal, overflow="ellipsis")
    lines = [[Text(clean(cell), style=_STYLES.get(cell, "")) for cell in row] for row in rows]
    room = _room(console.width, header, lines)
    for *cells, last in lines:
        if on_terminal:
            last.truncate(max(room, len(header[-1])), overflow="ellipsis")  # rich would narrow every column alike
        table.add_row(*cells, last)
    with console.capture() as capture:
        console.print(table)
    sys.stdout.write("".join(line.rstrip() + "\n" for line in capture.get().splitlines()))


def _fitting(
    width: int, header: Sequence[str], rows: Sequence[Sequence[str]], usual: Mapping[str, str]
) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    """All columns if they fit; else those that tell the rows apart."""
    if sum(max(map(len, column)) + _GAP for column in zip(header, *rows, strict=True)) <= width:
        return header, rows
    told = [i for i, name in enumerate(header) if any(row[i] != usual.get(name) for row in rows)]
    return ([header[i] for i in told], [[row[i] for i in told] for row in rows]) if told else (header, rows)


def _named(width: int, rows: Sequence[Sequence[str]]) -> int | None:
    """How wide the first column has to be, if that leaves some room: who reads a name wants to copy it."""
    widest = max((len(row[0]) for row in rows), default=0)
    return widest if widest <= width // 2 else None


def _room(width: int, header: Sequence[str], lines: Sequence[Sequence[Text]]) -> int:
    """How many cells of `width` are left for the last column."""
    taken = (max([len(name), *(line[i].cell_len for line in lines)]) for i, name in enumerate(header[:-1]))
    return width - sum(cells + _GAP for cells in taken) - _GAP


def run_text(view: RunView, output: str, *, waits: str | None = None) -> str:
    """One run, whole; `waits`: why it does not go on."""
    match output:
        case "json":
            return pretty(view)
        case "jsonl":
            return compact(view)
    fields = {
        "run": view.id,
        "actor": view.actor,
        "state": view.state if waits is None else f"{view.state}: {waits}",
        "key": view.key,
        "queue": view.queue,
        "priority": None if view.priority == "normal" else view.priority,
        "assumed": ", ".join(view.assumed),
        "retry of": view.retry_of,
        "attempt": str(view.attempt),
        "chunks": str(view.chunks),
        "created": _moment(view.created),
        "due": _moment(view.not_before),
        "started": _moment(view.started),
        "ended": _moment(view.ended),
        "took": None if view.started is None or view.ended is None else duration(view.ended - view.started),
        "cursor": view.latest,
        "input": _json(view.input),
        "result": _json(view.result),
        "error": None if view.error is None else f"{view.error.message} ({view.error.code})",
    }
    return "\n".join(f"{name:9}{clean(value)}" for name, value in fields.items() if value)


def age(since: float) -> str:
    """How long ago, roughly: ``12 s``, ``5 min``, ``3 h``, ``2 days``."""
    seconds = max(time.time() - since, 0.0)
    for size, word in ((86400.0, "days"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {word}"
    return f"{seconds:.0f} s"


def _json(raw: object) -> str | None:
    return compact(raw) if isinstance(raw, Raw) and bytes(raw) != b"null" else None


def _moment(at: float | None) -> str | None:
    return None if at is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))

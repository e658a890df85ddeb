"""Lists and single runs, for people and for programs."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Raw
from rich.console import Console
from rich.text import Text

from loom.model.options import DEFAULTS, OPTIONS
from loom.model.parts import Usage
from loom.wire.json import decode, encode
from loom.wire.views import RunView

from .clean import clean
from .columns import GAP, fit, shortened
from .paint import is_terminal
from .shows import compact, pretty
from .tally import duration, used

__all__ = ["age", "print_rows", "run_text"]

_STYLES = {
    "completed": "green",
    "failed": "red",
    "lost": "red",
    "dead": "red",
    "cancelled": "yellow",
    "running": "cyan",
}


def print_rows(
    output: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    values: Sequence[Any],
    *,
    usual: Mapping[str, str] | None = None,
    spare: Sequence[str] = (),
) -> None:
    """`rows` as a table, cut to the terminal by `fit`, whole in a pipe; or `values` as JSON."""
    match output:
        case "json":
            print(pretty(list(values)))
        case "jsonl":
            sys.stdout.write("".join(compact(value) + "\n" for value in values))
        case _:
            _print_table(header, rows, usual or {}, spare)


def _print_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], usual: Mapping[str, str], spare: Sequence[str]
) -> None:
    console = Console(file=sys.stdout, highlight=False)
    on_terminal = is_terminal(sys.stdout)
    room = console.width - GAP if on_terminal else sys.maxsize
    rows = [[clean(cell) for cell in row] for row in rows]
    widths = fit(room, header, rows, usual, spare) if on_terminal else fit(room, header, rows, {}, ())
    lines = [_line(header, widths, "bold"), *(_line(row, widths) for row in rows)]
    with console.capture() as capture:
        for line in lines:
            line.truncate(room, overflow="ellipsis")
            console.print(line, soft_wrap=True)
    sys.stdout.write(capture.get())


def _line(cells: Sequence[str], widths: Mapping[int, int], style: str = "") -> Text:
    line = Text(style=style)
    for i, width in widths.items():
        cell = Text(shortened(cells[i], width, name=i == 0), style=_STYLES.get(cells[i], ""))
        cell.pad_right(width - cell.cell_len + GAP)
        line.append(cell)
    line.rstrip()
    return line


def run_text(view: RunView, output: str, *, usage: Usage | None = None, waits: str | None = None) -> str:
    """One run, whole. `usage`: of its models, where that is known; `waits`: why it does not go on."""
    if output in ("json", "jsonl"):
        value = view if usage is None else {**decode(encode(view)), "usage": usage}
        return pretty(value) if output == "json" else compact(value)
    fields = {
        "run": view.id,
        "actor": view.actor,
        "state": view.state if waits is None else f"{view.state}: {waits}",
        **_options_text(view),
        "assumed": ", ".join(view.assumed),
        "retry of": view.retry_of,
        "attempt": str(view.attempt),
        "chunks": str(view.chunks),
        "created": _moment(view.created),
        "due": _moment(view.not_before),
        "started": _moment(view.started),
        "ended": _moment(view.ended),
        "took": None if view.started is None or view.ended is None else duration(view.ended - view.started),
        "usage": used(usage),
        "cursor": view.latest,
        "input": _json(view.input),
        "result": _json(view.result),
        "error": None if view.error is None else f"{view.error.message} ({view.error.code})",
    }
    return "\n".join(f"{name:9}{clean(value)}" for name, value in fields.items() if value)


def _options_text(view: RunView) -> dict[str, str]:
    """The options that are shown: the queue always, the others unless they have their defaults."""
    values = view.settled()
    shown = (name for name, option in OPTIONS.items() if option.shown)
    return {name: _option_text(values[name]) for name in shown if name == "queue" or values[name] != DEFAULTS[name]}


def _option_text(value: Any) -> str:
    return ", ".join(f"{name}={text}" for name, text in value.items()) if isinstance(value, dict) else str(value)


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

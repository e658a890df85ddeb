"""Colours and the live line, by rich: what a terminal shows besides the run's own text."""

from __future__ import annotations

import os
from typing import NamedTuple, TextIO

from rich.console import Console, RenderableType
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.text import Text

from loom.model.chunk import Progress

from .clean import clean
from .tally import Tally, duration

__all__ = ["Marks", "Painter", "cut", "is_terminal", "size_of"]

_BAR = 20
_QUIET = 5.0  # silence is worth a word after this many seconds


class Marks(NamedTuple):
    """Signs for people, as far as the terminal's encoding has them."""

    good: str = "✓"
    bad: str = "✗"
    warning: str = "!"
    again: str = "↻"
    dot: str = "·"
    spinner: str = "dots"

    @classmethod
    def of(cls, encoding: str) -> Marks:
        return cls() if encoding.lower().startswith("utf") else cls("OK", "x", "!", "again:", "-", "line")


def is_terminal(file: TextIO) -> bool:
    """Whether people read `file` on a screen whose cursor can be moved."""
    return file.isatty() and os.environ.get("TERM", "") not in ("", "dumb", "unknown")


def size_of(file: TextIO) -> os.terminal_size:
    """Columns and lines now; 80 x 24 where the terminal does not tell."""
    try:
        size = os.get_terminal_size(file.fileno())
    except OSError:
        return os.terminal_size((80, 24))
    return os.terminal_size((size.columns or 80, size.lines or 24))


def cut(text: str, columns: int) -> str:
    """`text`, cut to at most `columns` cells."""
    line = Text(text)
    line.truncate(columns, overflow="ellipsis")
    return line.plain


class Painter:
    """Turns what is to be shown into text with colours, where the terminal has them (and NO_COLOR is not set)."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._console = Console(file=file, highlight=False, markup=False, emoji=False, soft_wrap=True)
        self.marks = Marks.of(file.encoding or "ascii")
        self._spinner = Spinner(self.marks.spinner, style="cyan")

    def columns(self) -> int:
        return size_of(self._file).columns

    def paint(self, what: RenderableType, *, style: str | None = None, columns: int | None = None) -> str:
        """`what` in `style`, without a line end; cut to `columns` if given."""
        with self._console.capture() as capture:
            self._console.print(what, style=style, end="", width=columns, soft_wrap=columns is None)
        return capture.get().rstrip("\n")

    def live(self, tally: Tally, now: float, note: str = "") -> str:
        """One line, shorter than the terminal's: how far the run is. `note`: what is said instead of the counts."""
        size = size_of(self._file)
        if size.lines < 3 or size.columns < 12:
            return ""
        room = size.columns - 1
        words = Text(note or self._words(tally, now), style="" if note else "dim")
        spinner = self._spinner.render(now)
        assert isinstance(spinner, Text)  # it has no text of its own
        line = Text(" ").join([spinner, *self._progress(tally.progress, room - 2 - words.cell_len), words])
        line.truncate(room, overflow="ellipsis")
        return self.paint(line)

    def _progress(self, progress: Progress | None, room: int) -> list[Text]:
        """What there is room for: the share that is done, the bar, the producer's own word."""
        cells: list[Text] = []
        if progress is None:
            return cells
        if progress.total:
            done = min(max(progress.current / progress.total, 0.0), 1.0)
            if room > _BAR + 6:
                cells.append(self._bar(done))
                room -= _BAR + 1
            if room > 5:
                cells.append(Text(f"{done:4.0%}"))
                room -= 5
        if progress.message and room > 8:
            cells.append(message := Text(clean(" ".join(progress.message.split()))))
            message.truncate(room - 1, overflow="ellipsis")
        return cells

    def _bar(self, done: float) -> Text:
        segments = self._console.render(ProgressBar(total=1.0, completed=done, width=_BAR))
        bar = Text.assemble(*((segment.text, segment.style or "") for segment in segments))
        bar.pad_right(_BAR - bar.cell_len)  # without colours rich leaves out what is not done
        return bar

    def _words(self, tally: Tally, now: float) -> str:
        quiet = now - tally.heard
        rate = tally.rate(now) if tally.count and quiet < _QUIET else None
        parts = [
            f"waiting for {'the first chunk' if tally.attempt else 'a worker'}" if tally.silent else "",
            tally.amount() if tally.count else "",
            "" if rate is None else f"{rate:,.{1 if rate < 100 else 0}f}/s",
            f"silent for {duration(quiet)}" if not tally.silent and quiet >= _QUIET else "",
            tally.elapsed(now),
        ]
        return f" {self.marks.dot} ".join(filter(None, parts))

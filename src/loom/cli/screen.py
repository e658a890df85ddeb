"""Text that flows on a terminal, with one live line under it. Values to control sequences; it writes nothing itself.

The terminal keeps the place: the cursor rests behind the text, and the live line is drawn below it between a save and
a restore of the cursor, after a line feed that keeps the column has made room (where a line begins, it is drawn there).
So neither wide characters nor a resized window can put text in the wrong place. Columns are counted only to break
lines between words.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from rich.cells import cell_len

__all__ = ["Screen"]

ERASE_BELOW = "\x1b[J"
MAKE_ROOM = "\x1bD\x1b[A"  # IND scrolls at the bottom and keeps the column; then up again (ECMA-48, 8.3.22)
SAVE, RESTORE = "\x1b7", "\x1b8"
_TAB = 8

_PARTS = re.compile(r"[ \t]+|\n|[^ \t\n\u1100-\U0010ffff]+|.")
"""Blanks, line ends, words; and one by one what may be wide, before and behind which a line may break."""


class Screen:
    """What to write, so that text stands as if nothing else was there, and `live` on the line below.

    `columns()`: the width now. What is given must be clean (see `clean`). Lines break between words: the beginning of
    a word that turns out not to fit is moved to the next line.
    """

    def __init__(self, columns: Callable[[], int]) -> None:
        self._columns = columns
        self._pending: list[str] = []
        self._size = 0
        self._cells = 0  # since the last line end
        self._word = ""  # the end of the text, if that is a word
        self._wrapped = False  # the text reached the right margin and was moved to the next line
        self._live = ""
        self._erase = ""  # what takes the live line away

    def __len__(self) -> int:
        """Characters that wait to be written."""
        return self._size

    @property
    def fresh(self) -> bool:
        """Whether the cursor is at the beginning of a line."""
        return self._cells == 0

    def add(self, text: str) -> None:
        """Text behind what was said."""
        columns = self._columns()
        for match in _PARTS.finditer(text):
            part = match[0]
            if part == "\n":
                self._put(part, -self._cells)
            elif part[0] in " \t":
                self._blank(part, columns)
            else:
                self._say(part, columns)

    def _blank(self, part: str, columns: int) -> None:
        """Blanks that do not fit are left out: the line break stands for them."""
        begin = column = self._cells % columns
        for character in part:
            column += _TAB - column % _TAB if character == "\t" else 1
        width = max(min(column, columns - 1) - begin, 0)
        self._put(" " * width, width)

    def _say(self, part: str, columns: int) -> None:
        """The last column stays free, as the cursor's place is unsure there, but for words of more than a line."""
        width, begun = cell_len(part), cell_len(self._word)
        column = self._cells % columns
        word = "" if width > 1 and len(part) == 1 else self._word + part
        if column + width < columns or begun >= column:
            self._put(part, width)
        else:
            back = f"\x1b[{begun}D\x1b[K" if begun else ""
            self._put(f"{back}\n{self._word}{part}", begun + width - self._cells)
        self._word = word

    def _put(self, text: str, cells: int) -> None:
        self._pending.append(text)
        self._size += len(text)
        self._cells += cells
        self._word = ""

    def add_line(self, text: str, *, painted: str | None = None) -> None:
        """A line of its own; `painted`: the same with colours."""
        if not self.fresh:
            self.add("\n")
        self._put((text if painted is None else painted) + "\n", -self._cells)

    def flush(self, live: str) -> str:
        """All that is pending, and `live` (at most one line, no line end; may be empty) under it."""
        text = "".join(self._pending)
        if not text and live == self._live:
            return ""
        self._pending.clear()
        self._size = 0
        written = self._erase + self._placed(text)
        self._live = live
        self._erase = ERASE_BELOW if live else ""
        if live and self.fresh:
            self._erase = "\r" + ERASE_BELOW
            return written + live
        return f"{written}{MAKE_ROOM}{SAVE}\r\n{live}{RESTORE}" if live else written

    def _placed(self, text: str) -> str:
        """`text`, ending where the next character will stand.

        A terminal keeps the cursor on a line that is exactly full until the next character comes, and saving or
        erasing there goes wrong: a blank and a backspace make it wrap now.
        """
        if not text:
            return ""
        if self._wrapped and text.startswith("\n"):
            text = text[1:]
        full = self._cells > 0 and self._cells % self._columns() == 0
        self._wrapped = full
        return text + " \b" if full else text

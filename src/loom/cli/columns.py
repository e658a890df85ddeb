"""Which columns of a table fit a terminal, and how wide they are there. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from rich.cells import cell_len
from rich.text import Text

__all__ = ["GAP", "fit", "shortened"]

GAP = 2
"""Blanks between two columns."""

_NAME = 27
"""A name that is cut keeps as much, if that can be: ids that Loom draws are whole, to be copied."""

_LEAST = 12
"""A column that is cut keeps this much, and its header."""


def fit(
    room: int,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    usual: Mapping[str, str],
    spare: Sequence[str],
) -> dict[int, int]:
    """The columns that are shown, each with its width. The first one names the row.

    Where not all fit, columns that only have their `usual` value go; then those of `spare`, in its order; then the
    name is shortened, if the others need it. What room there is goes to the columns that are cut, in equal parts.
    """
    wanted = {i: max(map(cell_len, column)) for i, column in enumerate(zip(header, *rows, strict=True))}
    if _fits(room, wanted.values()):
        return wanted
    unusual = {i: width for i, width in wanted.items() if any(row[i] != usual.get(header[i]) for row in rows)}
    wanted = unusual or wanted
    least = {i: min(width, max(len(header[i]), _LEAST)) for i, width in wanted.items()}
    for name in (room // 2, _NAME, _LEAST):
        if 0 in wanted:
            least[0] = max(len(header[0]), min(wanted[0], name))
        if name == room // 2 and least.get(0) != wanted.get(0):
            continue  # too long to be whole
        kept = _without(spare, header, room, least)
        if _fits(room, kept.values()):
            break
    return _widened(room, kept, wanted)


def _without(spare: Sequence[str], header: Sequence[str], room: int, least: Mapping[int, int]) -> dict[int, int]:
    """`least` without columns of `spare`, as few as have to go."""
    kept = dict(least)
    for name in spare:
        if not _fits(room, kept.values()):
            kept.pop(header.index(name), None)
    return kept


def _fits(room: int, widths: Collection[int]) -> bool:
    return sum(widths) + GAP * (len(widths) - 1) <= room


def _widened(room: int, least: Mapping[int, int], wanted: Mapping[int, int]) -> dict[int, int]:
    """As wide as all of them can be, none wider than it wants, if the room is there."""
    for most in range(room, 0, -1):
        widths = {i: max(width, min(wanted[i], most)) for i, width in least.items()}
        if _fits(room, widths.values()):
            return widths
    return dict(least)


def shortened(text: str, width: int, *, name: bool) -> str:
    """`text` in at most `width` cells. A `name` keeps its end too: ids mostly differ there."""
    if name and len(text) > width > 2:
        head = width // 2
        return f"{text[:head]}…{text[len(text) - (width - head - 1) :]}"
    line = Text(text)
    line.truncate(width, overflow="ellipsis")
    return line.plain

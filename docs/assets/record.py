"""Records a real terminal session as an animated picture. ``python docs/assets/record.py`` writes terminal.svg.

The command runs on a pseudo-terminal; what it writes, when it writes it, goes through a screen model, and each change
of the screen becomes a frame. It begins with the last frame, which is also all of it without animation (and with
reduced motion): so there is something to see at once.
"""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import sys
import tempfile
import termios
import time
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import NamedTuple

import pyte
from pyte.screens import Char

HERE = Path(__file__).parent
TITLE = 'loom actor run chat-agent "Tell me about rivers" --stream'
COMMAND = [sys.executable, "-m", "loom", "actor", "run", "chat-agent", "Tell me about rivers", "--stream"]
COLUMNS, LINES = 80, 17

FRAMES_PER_SECOND = 12
TYPING = 0.9  # seconds that the command line takes
LAST = 4.0  # seconds that the last frame stays, first of all

CELL, LINE, PAD, BAR = 8.4, 19.0, 16.0, 34.0
COLOURS = {
    "default": "#d5d9e0", "black": "#5c6370", "red": "#e06c75", "green": "#98c379", "brown": "#e5c07b",
    "blue": "#61afef", "magenta": "#c678dd", "cyan": "#56b6c2", "white": "#d5d9e0", "brightblack": "#7f8795",
}  # fmt: skip
STYLE = """\
text { font: 14px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; white-space: pre }
.strip { animation: play %.2fs step-end infinite }
@media (prefers-reduced-motion: reduce) { .strip { animation: none } }
@keyframes play { %s }"""


class Frame(NamedTuple):
    """What stands on the screen from `at` on (seconds): its rows, as SVG, and the cursor's column and row."""

    at: float
    rows: tuple[str, ...]
    cursor: tuple[int, int]


def record() -> Iterator[tuple[float, bytes]]:
    """What the command writes, and when."""
    pid, master = pty.fork()
    if pid == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", LINES - 1, COLUMNS, 0, 0))
        names = ("LOOM_", "OPENAI_", "NO_COLOR")
        env = {name: value for name, value in os.environ.items() if not name.startswith(names)}
        os.execve(COMMAND[0], COMMAND, {**env, "TERM": "xterm", "XDG_STATE_HOME": tempfile.mkdtemp()})
    began = time.monotonic()
    while True:
        try:
            data = os.read(master, 65536)
        except OSError:  # EIO: it has ended
            break
        yield time.monotonic() - began, data
    os.waitpid(pid, 0)


def frames() -> Iterator[Frame]:
    """The command line as it is typed, then each screen that differs from the one before, so many a second."""
    prompt = "$ " + TITLE
    for length in range(2, len(prompt) + 1, 4):
        yield Frame(TYPING * length / len(prompt), (row_of_text(prompt[:length]),), (length, 0))
    screen = pyte.Screen(COLUMNS, LINES - 1)
    stream = pyte.ByteStream(screen)
    due, newest = 0.0, TYPING
    for at, data in record():
        if at >= due:
            yield frame_of(screen, prompt, newest)
            due = at + 1 / FRAMES_PER_SECOND
        stream.feed(data.replace(b"\x1b[2m", b"\x1b[90m"))  # the screen model knows no faint text
        newest = TYPING + at
    yield frame_of(screen, prompt, newest)


def frame_of(screen: pyte.Screen, prompt: str, at: float) -> Frame:
    rows = [row_of([screen.buffer[y][x] for x in range(COLUMNS)]) for y in range(screen.lines)]
    return Frame(at, (row_of_text(prompt), *rows), (screen.cursor.x, screen.cursor.y + 1))


def row_of_text(text: str) -> str:
    return row_of([Char(character) for character in text])


def row_of(row: list[Char]) -> str:
    """A row as SVG: a `text` for each stretch of one colour, each as wide as its cells."""
    parts, start = [], 0
    while start < len(row):
        end = start + 1
        while end < len(row) and row[end].fg == row[start].fg:
            end += 1
        text = "".join(char.data for char in row[start:end])
        if text.strip():
            stripped = text.rstrip()
            begin = len(stripped) - len(stripped.lstrip())
            words = stripped.lstrip()
            parts.append(
                f'<text x="{(start + begin) * CELL:.1f}" fill="{COLOURS.get(row[start].fg, COLOURS["default"])}"'
                f' textLength="{len(words) * CELL:.1f}" lengthAdjust="spacingAndGlyphs">{escape(words)}</text>'
            )
        start = end
    return "".join(parts)


def picture(shown: list[Frame]) -> str:
    """The frames side by side on a strip that jumps past a window; each different row is drawn once."""
    width, height = COLUMNS * CELL + 2 * PAD, LINES * LINE + 2 * PAD + BAR
    total = shown[-1].at + LAST
    begins = [0.0, LAST, *(LAST + frame.at for frame in shown[1:-1])]
    steps = " ".join(
        f"{100 * begin / total:.2f}% {{ transform: translateX({-index * width:.1f}px) }}"
        for begin, index in zip(begins, [len(shown) - 1, *range(len(shown) - 1)], strict=True)
    )
    names: dict[str, str] = {}
    strip = []
    for index, frame in enumerate(shown):
        uses = [
            f'<use href="#{names.setdefault(row, f"r{len(names)}")}" y="{number * LINE:g}"/>'
            for number, row in enumerate(frame.rows)
            if row
        ]
        x, y = frame.cursor
        block = (
            f'<rect x="{x * CELL:.1f}" y="{y * LINE - 14:.1f}" width="{CELL}" height="18" fill="#d5d9e0" opacity=".6"/>'
        )
        strip.append(f'<g transform="translate({index * width + PAD:.1f} {BAR + PAD + 13})">{"".join(uses)}{block}</g>')
    rows = "\n".join(f'<g id="{name}">{row}</g>' for row, name in names.items())
    lights = "".join(
        f'<circle cx="{PAD + 8 + 20 * index}" cy="{BAR / 2 + 4}" r="6" fill="{colour}"/>'
        for index, colour in enumerate(("#ff5f57", "#febc2e", "#28c840"))
    )
    frames_svg = "\n".join(strip)
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" role="img">
<title>{escape(TITLE)}</title>
<style>
{STYLE % (total, steps)}
</style>
<defs>
{rows}
</defs>
<rect width="{width:.0f}" height="{height:.0f}" rx="10" fill="#21252b"/>
{lights}
<g class="strip" transform="translate({-(len(shown) - 1) * width:.1f} 0)">
{frames_svg}
</g>
</svg>
"""


def changes() -> list[Frame]:
    """The frames that differ from the one before."""
    kept: list[Frame] = []
    for frame in frames():
        if not kept or kept[-1][1:] != frame[1:]:
            kept.append(frame)
    return kept


if __name__ == "__main__":
    (HERE / "terminal.svg").write_text(picture(changes()), encoding="utf-8")

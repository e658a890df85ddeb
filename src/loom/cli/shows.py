"""How a run's chunks look: on a terminal, as plain text, as JSON, as a table. All have the shape of `Show`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from loom.model import limits
from loom.model.chunk import Chunk, Progress
from loom.model.errors import ErrorInfo
from loom.model.grammar import is_output
from loom.model.parts import Usage, part_of
from loom.model.run import RunState
from loom.wire.json import encode

from .clean import clean
from .paint import Painter, cut, is_terminal, size_of
from .screen import Screen
from .tally import Tally, answer_in, text_of, used

__all__ = ["Array", "Lines", "Plain", "Quiet", "Show", "Table", "Terminal", "compact", "make_show", "pretty"]

Say = Callable[[str], object]
"""Tells people something that is no output: a line for standard error."""

_ENDINGS: dict[str, tuple[bool, str]] = {
    "completed": (True, "Complete"),
    "failed": (False, "Failed"),
    "cancelled": (False, "Cancelled"),
    "lost": (False, "Lost"),
    "dead": (False, "Dead"),
}


class Show(Protocol):
    """Takes chunks as they come; `flush` gives what is to be written since the last time."""

    moves: bool
    """Whether it changes as time passes: then it is flushed now and then."""

    def __len__(self) -> int:
        """About how many characters wait to be written."""
        ...

    def take(self, chunk: Chunk[Any], taken_back: int) -> None:
        """`taken_back`: how many chunks of output this one takes back."""
        ...

    def aside(self, text: str) -> None:
        """Something that the process itself printed."""
        ...

    def outage(self, place: str | None, now: float) -> None:
        """The server at `place` is out of reach; None: it answers again."""
        ...

    def result(self, value: Any) -> None:
        """The run's result, where it is shown instead of the chunks."""
        ...

    def end(self, state: RunState | None, now: float) -> None:
        """Nothing follows. None: we left, the run goes on."""
        ...

    def flush(self, now: float) -> str: ...


class _Written:
    """What all that do not move share: pieces that wait."""

    moves = False

    def __init__(self, say: Say) -> None:
        self._say = say
        self._pending: list[str] = []
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def _put(self, text: str) -> None:
        self._pending.append(text)
        self._size += len(text)

    def aside(self, text: str) -> None:
        self._say(text)

    def outage(self, place: str | None, now: float) -> None:
        self._say("connected again\n" if place is None else f"connection lost; trying again: {place}\n")

    def result(self, value: Any) -> None:
        if value is not None:
            text = answer_in(value)
            text = pretty(value) if text is None else text
            self._put(text if text.endswith("\n") else text + "\n")

    def end(self, state: RunState | None, now: float) -> None:
        pass

    def flush(self, now: float) -> str:
        text = "".join(self._pending)
        self._pending.clear()
        self._size = 0
        return text


class Plain(_Written):
    """For pipes and files: the text as it is, every other value as JSON on a line of its own."""

    def __init__(self, say: Say) -> None:
        super().__init__(say)
        self._fresh = True

    def take(self, chunk: Chunk[Any], taken_back: int) -> None:
        text = text_of(chunk)
        if text is not None:
            self._put(text)
            self._fresh = text.endswith("\n") if text else self._fresh
        elif chunk.type == "data" or (chunk.type == "complete" and chunk.data is not None):
            self._line(chunk.data if isinstance(chunk.data, str) else compact(chunk.data))
        elif taken_back:
            note = f"note: attempt {_attempt(chunk)} took back the last {_chunks(taken_back)} of the output"
            self._say(_joined(note, clean(_why(chunk))) + "\n")

    def _line(self, text: str) -> None:
        self._put(text + "\n" if self._fresh else f"\n{text}\n")
        self._fresh = True

    def end(self, state: RunState | None, now: float) -> None:
        if not self._fresh:
            self._put("\n")


class Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """A chunk as JSON output has it: the stored chunk, with its place, and the cursor to resume behind it."""

    type: str
    data: Any = None
    progress: Progress | None = None
    error: ErrorInfo | None = None
    source: str | None = None
    time: float = 0.0
    usage: Usage | None = None
    seq: int = 0
    cursor: str = ""

    @classmethod
    def of(cls, chunk: Chunk[Any]) -> Line:
        stored = {name: getattr(chunk, name) for name in chunk.__struct_fields__ if name in cls.__struct_fields__}
        return cls(**{**stored, "cursor": str(chunk.cursor)})


class Lines(_Written):
    """JSON Lines: a chunk a line."""

    def take(self, chunk: Chunk[Any], taken_back: int) -> None:
        self._put(compact(Line.of(chunk)) + "\n")


class Array(_Written):
    """One JSON array of the same, written as it comes."""

    def __init__(self, say: Say) -> None:
        super().__init__(say)
        self._opened = False

    def take(self, chunk: Chunk[Any], taken_back: int) -> None:
        self._put((",\n" if self._opened else "[\n") + compact(Line.of(chunk)))
        self._opened = True

    def end(self, state: RunState | None, now: float) -> None:
        self._put("\n]\n" if self._opened else "[]\n")


class Table(_Written):
    """A row a chunk: its seq, seconds since the first row, type, and what it holds. `columns`: 0 for uncut rows."""

    def __init__(self, say: Say, columns: int = 0) -> None:
        super().__init__(say)
        self._columns = columns
        self._began: float | None = None

    def take(self, chunk: Chunk[Any], taken_back: int) -> None:
        if self._began is None:
            self._began = chunk.time
            self._put(f"{'SEQ':>6}  {'TIME':>8}  {'TYPE':12}  DATA\n")
        row = f"{chunk.seq:6}  {chunk.time - self._began:+8.2f}  {chunk.type:12}  {compact(_content(chunk))}"
        self._put((cut(clean(row), self._columns) if self._columns else row) + "\n")


class Quiet(_Written):
    """Nothing of the chunks; the result, once it is there."""

    def take(self, chunk: Chunk[Any], taken_back: int) -> None:
        pass


class Terminal:
    """Text as it comes over a live line, and how it ended. `text`: False leaves only the live line and the result."""

    moves = True

    def __init__(self, painter: Painter, tally: Tally, *, text: bool = True) -> None:
        self._painter = painter
        self._screen = Screen(painter.columns)
        self._tally = tally
        self._text = text
        self._live = ""
        self._drawn = 0.0
        self._shown: object = None
        self._ended = False
        self.note = ""
        """What the live line says instead of the counts."""
        self._lost: tuple[str, float] | None = None

    def __len__(self) -> int:
        return len(self._screen)

    def take(self, chunk: Chunk[Any], taken_back: int) -> None:
        if not self._text:
            return
        text = text_of(chunk)
        if text is not None:
            self._screen.add(clean(text))
        elif chunk.type == "data" and isinstance(chunk.data, dict) and part_of(chunk.data) is not None:
            self._told(f"{self._painter.marks.dot} {compact(chunk.data)}", "dim")
        elif chunk.type == "data":
            self._screen.add_line(clean(compact(chunk.data)))
        elif chunk.type == "start":
            self._restarted(chunk, taken_back)
        elif chunk.type == "complete":
            self.result(chunk.data)
        elif is_output(chunk.type) and chunk.progress is None:
            self._told(f"{self._painter.marks.dot} {chunk.type} {compact(chunk.data)}", "dim")

    def _restarted(self, chunk: Chunk[Any], taken_back: int) -> None:
        title, why = f"{self._painter.marks.again} Attempt {_attempt(chunk)}", _why(chunk)
        if taken_back and self._tally.count:
            self._told(_joined(title, why, f"the last {_chunks(taken_back)} above no longer stand"), "yellow")
        elif taken_back:
            self._told(_joined(f"{title} starts over", why, "what stands above no longer counts"), "yellow")
        elif _attempt(chunk) > 1:
            self._told(_joined(f"{title} goes on" if self._tally.count else title, why), "dim")

    def aside(self, text: str) -> None:
        self._told(text.rstrip("\n"), "dim")

    def outage(self, place: str | None, now: float) -> None:
        self._lost = None if place is None else (place, now)

    def result(self, value: Any) -> None:
        if value is not None:
            self._screen.add("" if self._screen.fresh else "\n")
            text = answer_in(value)
            self._screen.add(clean(pretty(value) if text is None else text.removesuffix("\n")) + "\n")

    def _told(self, text: str, style: str) -> None:
        text = clean(text)
        self._screen.add_line(text, painted=self._painter.paint(text, style=style))

    def end(self, state: RunState | None, now: float) -> None:
        self._ended = True
        good, word = _ENDINGS.get(state or "", (True, "Detached"))
        mark = self._painter.marks.good if good else self._painter.marks.bad
        facts = [self._tally.amount() if self._tally.count else "", self._tally.elapsed(now), used(self._tally.usage)]
        line = f"{mark} {word} ({', '.join(filter(None, facts))})"
        if not self._screen.fresh:
            self._screen.add("\n")
        if state is not None:
            self._screen.add_line(line, painted=self._painter.paint(line, style="green" if good else "red"))

    def flush(self, now: float) -> str:
        if self._ended:
            return self._screen.flush("")
        shown = (self._tally.silent, self._tally.progress, self.note, self._lost)
        if now - self._drawn >= limits.REDRAW or shown != self._shown:
            self._live = self._painter.live(self._tally, now, self.note or self._outage_words(now))
            self._drawn, self._shown = now, shown
        return self._screen.flush(self._live)

    def _outage_words(self, now: float) -> str:
        if self._lost is None:
            return ""
        place, since = self._lost
        return f"reconnecting to {place} {self._painter.marks.dot} {now - since:.0f} s"


def make_show(output: str, tally: Tally, *, stream: bool) -> Show:
    """What `-o` asks for, on standard output. `stream`: chunks as they come, or else the result alone."""
    say = sys.stderr.write
    if output == "text" and is_terminal(sys.stdout):
        return Terminal(Painter(sys.stdout), tally, text=stream)
    if not stream:
        return Quiet(say)
    match output:
        case "jsonl":
            return Lines(say)
        case "json":
            return Array(say)
        case "table":
            return Table(say, size_of(sys.stdout).columns if is_terminal(sys.stdout) else 0)
    return Plain(say)


def compact(value: Any) -> str:
    """The value's JSON on one line."""
    return encode(value).decode()


def pretty(value: Any) -> str:
    """The value's JSON, indented."""
    return msgspec.json.format(encode(value), indent=2).decode()


def _content(chunk: Chunk[Any]) -> Any:
    for part in (chunk.error, chunk.progress, chunk.data):
        if part is not None:
            return part
    return None if chunk.usage is None else {"usage": chunk.usage}


def _attempt(chunk: Chunk[Any]) -> int:
    return int(chunk.data.get("attempt", 1)) if isinstance(chunk.data, dict) else 1


def _why(chunk: Chunk[Any]) -> str:
    """What ended the attempt before, as far as it was an error: on one line."""
    return "" if chunk.error is None else " ".join(chunk.error.message.split())


def _joined(title: str, *facts: str) -> str:
    return ": ".join(filter(None, [title, "; ".join(filter(None, facts))]))


def _chunks(count: int) -> str:
    return "chunk" if count == 1 else f"{count} chunks"

"""The one rule of what a run's later chunks take back of its earlier ones. Pure; the page's `restarts.js` is its twin.

A `start` takes back every chunk behind its `kept_through`. An `action-start` that repeats an unfinished step takes back
what that step said, by its source; steps below it that are complete stand. Nothing that was taken back comes again.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import msgspec

from .chunk import Chunk
from .errors import RemoteProtocolError
from .grammar import is_output

__all__ = ["MARKERS", "Fold", "Retraction", "kept_through", "surviving"]

T = TypeVar("T")
V = TypeVar("V")

MARKERS = frozenset({"start", "action-start", "action-complete"})
"""The types that `Fold.feed` has to see; it ignores every other one."""

_FAR = 2**63 - 1


def kept_through(chunk: Chunk[Any]) -> int | None:
    """For a `start` chunk: up to which seq the earlier output still stands. None for every other chunk.

    Raises `RemoteProtocolError` when it is no such number.
    """
    if chunk.type != "start":
        return None
    kept = chunk.data.get("kept_through", 0) if isinstance(chunk.data, dict) else 0
    if type(kept) is not int or kept < 0:
        raise RemoteProtocolError(f"kept_through is a seq or 0, not {kept!r:.80}")
    return kept


class Retraction(msgspec.Struct, frozen=True):
    """Chunks that no longer stand: those with `after` < seq < `before`, all of them or those of one step."""

    after: int
    before: int = _FAR
    step: str | None = None
    """Only chunks whose source is this step or lies below it."""
    complete: tuple[str, ...] = ()
    """Steps below it that are complete: their chunks stand."""

    def covers(self, seq: int, source: str | None = None) -> bool:
        """True if the chunk at `seq`, of this source, is taken back."""
        if not self.after < seq < self.before:
            return False
        if self.step is None:
            return True
        return _is_in(source, self.step) and not any(_is_in(source, step) for step in self.complete)

    def covers_any(self, newest: Mapping[str | None, int]) -> bool:
        """`covers` for any chunk of those whose newest seq of each source is given: enough for a reader that keeps
        nothing but how far it is."""
        return any(self.covers(seq, source) for source, seq in newest.items())

    def cut(self, kept: list[V], place: Callable[[V], tuple[int, str | None]]) -> None:
        """Delete what is taken back from `kept`, in order of seq; `place` gives an item's seq and source."""
        first = bisect_right(kept, self.after, key=lambda item: place(item)[0])
        kept[first:] = [item for item in kept[first:] if not self.covers(*place(item))]


class Fold:
    """Decides, chunk by chunk, what is taken back. To be fed a log's markers in order; holds a few words a step."""

    def __init__(self) -> None:
        self._steps: dict[str, tuple[int, int | None]] = {}  # source to the seqs of its action-start and -complete

    def feed(self, chunk: Chunk[Any]) -> Retraction | None:
        """Take the next marker; the retraction that it makes, if any. Raises `RemoteProtocolError` for a `start` whose
        `kept_through` is no seq."""
        if chunk.type == "start":
            return self._restart(kept_through(chunk) or 0, chunk.seq)
        if chunk.source is None:
            return None
        if chunk.type == "action-start":
            return self._begin(chunk.source, chunk)
        if chunk.type == "action-complete" and chunk.source in self._steps:
            self._steps[chunk.source] = (self._steps[chunk.source][0], chunk.seq)
        return None

    def _restart(self, kept: int, seq: int) -> Retraction | None:
        if kept >= seq - 1:
            return None
        self._steps = {
            step: (began, None if ended is not None and ended > kept else ended)
            for step, (began, ended) in self._steps.items()
            if began <= kept
        }
        return Retraction(kept, seq)

    def _begin(self, step: str, chunk: Chunk[Any]) -> Retraction | None:
        began, ended = self._steps.get(step, (None, None))
        self._steps[step] = (chunk.seq, None)
        if began is None:
            if not _is_repeated(chunk):
                return None
            began = 1  # its earlier tries lie before what was fed: a reader that resumed, a log that was trimmed
        elif ended is not None:
            return None
        below = [(source, done) for source, (_, done) in self._steps.items() if source.startswith(step + "/")]
        for source, done in below:
            if done is None:
                del self._steps[source]
        return Retraction(began - 1, chunk.seq, step, tuple(source for source, done in below if done is not None))


def surviving(chunks: Iterable[Chunk[T]]) -> list[Chunk[T]]:
    """The output that still stands, in order."""
    fold, kept = Fold(), list[Chunk[T]]()
    for chunk in chunks:
        retraction = fold.feed(chunk) if chunk.type in MARKERS else None
        if retraction is not None:
            retraction.cut(kept, _place)
        if is_output(chunk.type):
            kept.append(chunk)
    return kept


def _place(chunk: Chunk[Any]) -> tuple[int, str | None]:
    return chunk.seq, chunk.source


def _is_in(source: str | None, step: str) -> bool:
    return source is not None and (source == step or source.startswith(step + "/"))


def _is_repeated(chunk: Chunk[Any]) -> bool:
    attempt = chunk.data.get("attempt") if isinstance(chunk.data, dict) else None
    return isinstance(attempt, int) and attempt > 1

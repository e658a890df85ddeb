"""What a run has said so far, in numbers: how much stands, how fast it came, how far it is."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import deque
from typing import Any

from loom.model.chunk import Chunk, Progress
from loom.model.grammar import is_output
from loom.model.parts import RefusalPart, TextPart, Usage, part_of
from loom.model.retraction import MARKERS, Fold, Retraction

__all__ = ["Tally", "answer_in", "duration", "text_in", "text_of", "used"]

_SPAN = 3.0  # the rate is that of the last seconds
_SAMPLES = 100


def text_of(chunk: Chunk[Any]) -> str | None:
    """The text that a chunk adds to the flow, if that is what it does."""
    return text_in(chunk.data) if chunk.type in ("data", "text-delta", "stdout", "stderr") else None


def text_in(data: Any) -> str | None:
    """The text that a value is: a string, or a model's part that is text."""
    if isinstance(data, str):
        return data
    part = part_of(data) if isinstance(data, dict) and "part" in data else None
    return part.text if isinstance(part, TextPart | RefusalPart) else None


def answer_in(result: Any) -> str | None:
    """The text of a result that is a string, or the parts of a model's answer."""
    if isinstance(result, list) and result and all(isinstance(one, str) or part_of(one) for one in result):
        return "".join([text_in(one) or "" for one in result])
    return text_in(result)


class Tally:
    """Counts a run's chunks as they are read; what a restart takes back is taken off. Times in monotonic seconds."""

    def __init__(self, now: float) -> None:
        self.started = now
        self.heard = now
        self.ended: float | None = None
        self.progress: Progress | None = None
        self.attempt = 0
        self.usage: Usage | None = None
        self._fold = Fold()
        self._count = 0
        self._texts: dict[str | None, array[int]] = {}  # seqs of what stands, by source
        self._others: dict[str | None, array[int]] = {}
        self._wall: float | None = None
        self._recent: deque[tuple[float, int]] = deque(maxlen=_SAMPLES)

    def began(self, at: float, wall: float, now: float) -> None:
        """The run began before we did: at `at`, in Unix seconds, when it is `wall` now."""
        self.started = now - max(wall - at, 0.0)
        self._wall = at

    @property
    def silent(self) -> bool:
        """Whether nothing was said yet that stands."""
        return not self._texts and not self._others and self.progress is None

    @property
    def count(self) -> int:
        return self._count

    def take(self, chunk: Chunk[Any], now: float) -> int:
        """Count a chunk. Returns how many chunks of output it took back."""
        self.heard = now
        if chunk.type in ("complete", "error"):
            self.ended = now if self._wall is None else self.started + max(chunk.time - self._wall, 0.0)
        if chunk.progress is not None:
            self.progress = chunk.progress
        self.usage = chunk.usage or self.usage
        if chunk.type == "start":
            self.attempt = chunk.data.get("attempt", self.attempt + 1) if isinstance(chunk.data, dict) else 1
        retraction = self._fold.feed(chunk) if chunk.type in MARKERS else None
        taken_back = 0 if retraction is None else self._retract(retraction)
        if is_output(chunk.type) and chunk.progress is None:
            seqs = self._others if text_of(chunk) is None else self._texts
            seqs.setdefault(chunk.source, array("Q")).append(chunk.seq)
            self._count += 1
            self._sample(now)
        return taken_back

    def _retract(self, retraction: Retraction) -> int:
        before = self._count
        for by_source in (self._texts, self._others):
            for source, seqs in list(by_source.items()):
                if seqs and retraction.covers(seqs[-1], source):
                    self._count -= len(seqs)
                    del seqs[bisect_right(seqs, retraction.after) :]
                    self._count += len(seqs)
                if not seqs:
                    del by_source[source]
        if before != self._count:
            self.progress = None
            self._recent.clear()
        return before - self._count

    def _sample(self, now: float) -> None:
        if not self._recent or now - self._recent[-1][0] >= _SPAN / _SAMPLES:
            self._recent.append((now, self.count))

    def rate(self, now: float) -> float | None:
        """Chunks a second of late, None before it can be told."""
        while len(self._recent) > 2 and now - self._recent[0][0] > _SPAN:
            self._recent.popleft()
        if not self._recent or now - self._recent[0][0] < 0.5:
            return None
        since, count = self._recent[0]
        return (self.count - count) / (now - since)

    def amount(self) -> str:
        """As ``150 tokens`` when all that was said is text, else as ``12 chunks``."""
        word = "chunk" if self._others or not self._texts else "token"
        return f"{self.count:,} {word}{'' if self.count == 1 else 's'}"

    def elapsed(self, now: float) -> str:
        return duration((now if self.ended is None else self.ended) - self.started)


def used(usage: Usage | None) -> str:
    """As ``12 tokens in, 40 out``: what a run's models counted; empty if they counted nothing."""
    if usage is None or usage.calls == usage.uncounted:
        return ""
    least = "at least " if usage.uncounted else ""
    return f"{least}{usage.input_tokens:,} tokens in, {usage.output_tokens:,} out"


def duration(seconds: float) -> str:
    """For people: ``3.2 s``, ``2 min 05 s``, ``1 h 02 min``."""
    if seconds < 99.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours < 48 else f"{hours // 24} days"

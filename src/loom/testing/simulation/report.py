"""What a simulation has shown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec

from loom.model.run import Claim

from .check import Outbox, Violation
from .history import Call, Fault, Happening, digest_of

__all__ = ["Report"]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of one seed. ``assert report.ok, report`` tells what was violated, and how to see it again."""

    seed: int
    violations: tuple[Violation, ...]
    history: tuple[Happening, ...] = ()
    outboxes: dict[str, Outbox | None] = {}
    seconds: float = 0.0
    """Virtual ones."""
    needed: tuple[Fault, ...] = ()
    """Of a failure: the faults that are enough for it, as far as leaving out others has shown; the rest did nothing."""

    @property
    def ok(self) -> bool:
        """Whether every guarantee held."""
        return not self.violations

    @property
    def faults(self) -> Counter[str]:
        """How many faults hit, by kind."""
        return Counter(one.kind for one in self.history if isinstance(one, Fault))

    @property
    def calls(self) -> int:
        """How many calls the store answered."""
        return sum(isinstance(one, Call) for one in self.history)

    @property
    def attempts(self) -> int:
        """Over all runs: how often a producer was begun, or a run ended in its place."""
        epochs = [{cursor.epoch for cursor, _ in box.lines} for box in self.outboxes.values() if box is not None]
        return sum(map(len, epochs))

    @property
    def takeovers(self) -> int:
        """Claims of a run whose holder was lost."""
        claims = [one.result for one in self.history if isinstance(one, Call) and one.name == "claim"]
        return len({(c.run, c.crashes) for c in claims if isinstance(c, Claim) and c.crashes})

    @property
    def chunks(self) -> int:
        """In all outboxes."""
        return sum(len(box.lines) for box in self.outboxes.values() if box is not None)

    @property
    def digest(self) -> str:
        """Of the whole history: the same seed has the same one, in every process."""
        return digest_of(list(self.history))

    def __str__(self) -> str:
        lines = [f"seed {self.seed}: {'all guarantees held' if self.ok else 'VIOLATED'}", *_first(self.violations)]
        faults = ", ".join(f"{count} {kind}" for kind, count in sorted(self.faults.items()))
        lines.append(f"faults that hit: {faults or 'NONE, so that this shows nothing about faults'}")
        lines.append(
            f"{len(self.outboxes)} runs, {self.attempts} attempts, {self.takeovers} takeovers, {self.chunks} chunks, "
            f"{self.calls} calls in {self.seconds:.0f} virtual seconds"
        )
        if self.needed:
            lines.append(f"these {len(self.needed)} of {self.faults.total()} faults are enough:")
            lines += _first(self.needed)
        return "\n".join(lines)


def _first(told: Sequence[object]) -> list[str]:
    """A line each, of the first twenty."""
    lines = [f"  {one}" for one in told[:20]]
    return [*lines, f"  and {len(told) - 20} more"] if len(told) > 20 else lines

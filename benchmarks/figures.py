"""Figures and goals: what was measured, side by side, and what it was to be."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

__all__ = ["LOOM", "Figure", "Goal", "ratio"]

LOOM = "Loom"


@dataclass
class Goal:
    """What a figure was to be: `value` at most `limit` (at least, with `least`)."""

    text: str
    value: float
    limit: float
    least: bool = False

    @property
    def met(self) -> bool:
        return self.value >= self.limit if self.least else self.value <= self.limit


@dataclass
class Figure:
    """One quantity, of Loom and its peers, a value a round."""

    target: str
    what: str
    unit: str
    values: dict[str, list[float]]
    goals: list[Goal] = field(default_factory=list)

    def at_most(self, limit: float, text: str) -> None:
        """Loom's median was to be at most that."""
        self.goals.append(Goal(text, median(self.values[LOOM]), limit))

    def at_least(self, limit: float, text: str) -> None:
        self.goals.append(Goal(text, median(self.values[LOOM]), limit, least=True))

    def within(self, limit: float, peer: str, text: str) -> None:
        """Loom was to cost at most `limit` times what `peer` costs, if that was measured."""
        if self.values.get(peer):
            self.goals.append(Goal(text, ratio(self.values[LOOM], self.values[peer]), limit))

    def times(self, least: float, peer: str, text: str) -> None:
        """Loom was to be at least so many times what `peer` is, if that was measured."""
        if self.values.get(peer):
            self.goals.append(Goal(text, ratio(self.values[LOOM], self.values[peer]), least, least=True))

    def as_data(self) -> dict[str, Any]:
        return {**asdict(self), "goals": [{**asdict(goal), "met": goal.met} for goal in self.goals]}

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> Figure:
        goals = [Goal(goal["text"], goal["value"], goal["limit"], goal["least"]) for goal in data["goals"]]
        return cls(data["target"], data["what"], data["unit"], data["values"], goals)


def ratio(ours: list[float], theirs: list[float]) -> float:
    """The median of the rounds' ratios: what one round shares (a noisy neighbour, a slow clock) cancels out."""
    return median([a / b for a, b in zip(ours, theirs, strict=True)])

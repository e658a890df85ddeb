"""Figures as a table in the terminal, and as the page in the docs."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median
from typing import Any

from figures import LOOM, Figure, Goal, ratio
from notes import HOW, NOTES

__all__ = ["as_markdown", "as_table"]


def as_table(figures: Iterable[Figure]) -> str:
    """For the terminal: medians with least and most, the ratio to Loom, goals."""
    lines = []
    for figure in figures:
        lines.append(f"\n{figure.target}  {figure.what}  ({figure.unit})")
        for name, values in figure.values.items():
            share = "" if name == LOOM else f"Loom is {ratio(figure.values[LOOM], values):.2f} of it"
            spread = f"{_number(min(values))} to {_number(max(values))}"
            lines.append(f"    {name:28s} {_number(median(values)):>10s}   {spread:24s} {share}")
        lines += [f"    {'met ' if goal.met else 'MISSED'} {goal.text}: {_measured(goal)}" for goal in figure.goals]
    return "\n".join(lines)


def as_markdown(results: dict[str, Any]) -> str:
    """The page: one table, what the figures were measured on, and the reasons of what was missed."""
    lines = [HOW, _machine(results), "", "| | What | Loom | Peers | Goal |", "|---|---|---|---|---|"]
    for name, result in _ordered(results):
        for data in result["figures"]:
            lines.append(_row(Figure.from_data(data)))
        if "loaded" in result:
            loaded = ", ".join(f"`{module}`" for module in result["loaded"]) or "none"
            lines.append(f"| {name} | heavy modules that `import loom` loads | {loaded} | | |")
    lines += ["", "## Notes", ""]
    lines += [f"- **{name}** {NOTES[name]}" for name, _ in _ordered(results) if name in NOTES]
    return "\n".join(lines) + "\n"


def _ordered(results: dict[str, Any]) -> list[tuple[str, Any]]:
    def place(name: str) -> int:
        return int(name[1:]) if name.startswith("T") else 100

    return sorted(results.items(), key=lambda item: place(item[0]))


def _row(figure: Figure) -> str:
    ours = figure.values[LOOM]
    peers = ", ".join(f"{name} {_number(median(values))}" for name, values in figure.values.items() if name != LOOM)
    goals = "; ".join(f"{goal.text}: {'' if goal.met else '**missed**, '}{_measured(goal)}" for goal in figure.goals)
    spread = f" ({_number(min(ours))} to {_number(max(ours))})"
    what = f"{figure.what}, {figure.unit}"
    return f"| {figure.target} | {what} | **{_number(median(ours))}**{spread} | {peers} | {goals} |"


def _measured(goal: Goal) -> str:
    """The value; of a fraction the share of the limit that was used."""
    if goal.limit < 0.5:
        return f"1/{1 / goal.value:.1f}"
    return _number(goal.value)


def _number(value: float) -> str:
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _machine(results: dict[str, Any]) -> str:
    """Of the newest result."""
    result = max(results.values(), key=lambda result: str(result["when"]))
    facts = result["facts"]
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    node = f", Node {facts['node']}" if facts["node"] else ""
    return (
        f"Measured on {result['when']}, {result['rounds']} rounds: {facts['cpu']}, {facts['cores']} cores, "
        f"{facts['system']}, Python {facts['python']}{node}, {versions}; load client in {facts['client']}."
    )

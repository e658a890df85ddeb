"""The checker sees each thing that must not happen, and nothing where all is right."""

from __future__ import annotations

from typing import Any

import pytest

from .checker import check_keys, check_log, check_view
from .harness import Log, Seen

A, B = "100000001", "200000002"


def right() -> Seen:
    """Two attempts at a run that says 0 to 2."""
    return [
        (f"{A}-1", "start", {"attempt": 1}),
        (f"{A}-2", "data", {"i": 0}),
        (f"{B}-3", "start", {"attempt": 2}),
        (f"{B}-4", "data", {"i": 1}),
        (f"{B}-5", "data", {"i": 2}),
        (f"{B}-6", "complete", None),
    ]


def changed(place: int, *new: tuple[str, str, Any]) -> Seen:
    """The right one with other chunks at one place."""
    seen = right()
    seen[place : place + 1] = new
    return seen


def test_what_is_right_is_nothing() -> None:
    assert not check_log(right(), 3)
    assert not check_view(right(), right())


@pytest.mark.parametrize(
    ("log", "fault"),
    [
        (changed(3), "log_lost"),
        (changed(3), "log_gap"),
        (changed(4, (f"{B}-5", "data", {"i": 1})), "log_twice"),
        (changed(3, (f"{B}-4", "data", {"i": 2}), (f"{B}-5", "data", {"i": 1})), "log_disordered"),
        (changed(4, (f"{A}-5", "data", {"i": 2})), "log_older_epoch"),
        (changed(2), "log_attempts"),
        (changed(5), "log_end"),
        (changed(5, (f"{B}-6", "error", None)), "log_end"),
        ([*right(), (f"{B}-7", "complete", None)], "log_end"),
    ],
)
def test_a_wrong_log(log: Seen, fault: str) -> None:
    assert fault in check_log(log, 3)


@pytest.mark.parametrize(
    ("view", "fault"),
    [
        (right()[:-1], "lost"),
        (changed(1), "lost"),
        (changed(1, right()[1], right()[1]), "twice"),
        ([*right()[:3], right()[4], right()[3], right()[5]], "disordered"),
        (changed(4, (f"{B}-5", "data", {"i": 7})), "different"),
        (changed(4, (f"{A}-5", "data", {"i": 2})), "different"),
    ],
)
def test_a_wrong_view(view: Seen, fault: str) -> None:
    assert fault in check_view(view, right())


def test_runs_of_a_key_that_overlap() -> None:
    logs = {"a": Log([], [1.0, 2.0]), "b": Log([], [2.5, 3.0]), "c": Log([], [2.9, 4.0])}
    assert not check_keys(logs, {"k": ["a", "b"], "l": ["c"]})
    assert check_keys(logs, {"k": ["a", "b", "c"]}) == {"overlap": 1}

"""Counts and durations: what an option may be."""

from __future__ import annotations

from datetime import timedelta
from math import inf, nan
from typing import Any

import pytest

from loom.model import limits
from loom.model.numbers import is_duration, is_number, is_whole, seconds


@pytest.mark.parametrize("value", [1, 0.5, timedelta(milliseconds=1), limits.LONGEST])
def test_a_duration(value: Any) -> None:
    assert is_duration(value)


@pytest.mark.parametrize("value", [0, -1, timedelta(0), inf, -inf, nan, True, "1", None, 10**400, 2 * limits.LONGEST])
def test_no_duration(value: Any) -> None:
    assert not is_duration(value)


def test_a_duration_of_nothing_is_one_only_where_it_says_so() -> None:
    assert is_duration(0, zero=True)
    assert not is_duration(-1, zero=True)


@pytest.mark.parametrize("value", [0, 1.0, True, "1", None, 10**400])
def test_no_whole_number(value: Any) -> None:
    assert not is_whole(value)


def test_a_whole_number() -> None:
    assert is_whole(1)
    assert is_whole(limits.WHOLE)
    assert is_whole(0, 0)


def test_true_counts_nothing() -> None:
    assert is_number(1)
    assert not is_number(True)


def test_a_duration_is_float_seconds() -> None:
    assert seconds(timedelta(minutes=1)) == 60.0
    assert seconds(0.5) == 0.5
    assert seconds(None) is None

"""Numbers that an author or a caller gives: counts and durations, within what stores and timers can hold. Pure."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, TypeGuard

from . import limits

__all__ = ["is_duration", "is_number", "is_whole", "seconds"]


def is_number(value: Any) -> TypeGuard[float]:
    """True for what counts something: True and False, which Python takes for numbers, do not."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_whole(value: Any, least: int = 1) -> TypeGuard[int]:
    """True for a whole number from `least` to `limits.WHOLE`."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= limits.WHOLE


def is_duration(value: Any, *, zero: bool = False) -> TypeGuard[float | timedelta]:
    """True for a time in seconds or a timedelta: more than 0 (or 0, with `zero`), at most `limits.LONGEST`."""
    span = seconds(value)
    return is_number(span) and (span >= 0 if zero else span > 0) and span <= limits.LONGEST


def seconds(value: float | timedelta | None) -> float | None:
    """A duration as float seconds."""
    return value.total_seconds() if isinstance(value, timedelta) else value

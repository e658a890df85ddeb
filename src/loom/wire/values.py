"""Python values that JSON has no form for, and how each is written. Pure.

msgspec knows the rest: builtins, dates, UUIDs, decimals, enums, structs, dataclasses and attrs classes. Other people's
types (numpy, pandas, pydantic) are known by what they offer, and never imported.
"""

from __future__ import annotations

import collections
import fractions
import ipaddress
import math
import pathlib
from collections.abc import Callable, Coroutine, Mapping, Sequence, Set
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from .pydantic import dumped, is_url

__all__ = ["AS_TEXT", "NONFINITE", "nonfinite_text", "utc_if_odd", "written"]

NONFINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
"""Text for the numbers that JSON has no form for, as protobuf's JSON mapping writes them; `float` and JavaScript's
`Number` read it."""

AS_TEXT: tuple[type, ...] = (
    pathlib.PurePath,
    fractions.Fraction,
    ipaddress.IPv4Address,
    ipaddress.IPv6Address,
    ipaddress.IPv4Network,
    ipaddress.IPv6Network,
)
"""Written as their text, from which the class makes an equal value."""


def _datetime(value: datetime) -> datetime:
    _check_whole(value, "nanosecond")
    return datetime.combine(date(value.year, value.month, value.day), value.timetz())


def _timedelta(value: timedelta) -> timedelta:
    _check_whole(value, "nanoseconds")
    return timedelta(value.days, value.seconds, value.microseconds)


def _check_whole(value: Any, part: str) -> None:
    """Raises for what a datetime cannot hold: pandas's times of nanoseconds, and its NaT."""
    if value != value or getattr(value, part, 0):
        raise TypeError(f"cannot be sent as JSON: {_name(value)} {value!s}: round it to microseconds, or send its text")


_SUBCLASSES: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (str, str.__str__),
    (int, int.__index__),
    (float, float.__float__),
    (bytes, bytes.__bytes__),
    (datetime, _datetime),
    (date, lambda value: date(value.year, value.month, value.day)),
    (timedelta, _timedelta),
    (Decimal, Decimal),
    (UUID, lambda value: UUID(int=value.int)),
)
"""A subclass of a scalar is written as its base, whatever it overrides. The first that fits counts: a datetime is a
date as well."""


def written(value: Any) -> Any:
    """The value that stands for `value` in JSON, of types that msgspec knows. Raises `TypeError` naming a type without
    one."""
    for base, plain in _SUBCLASSES:
        if isinstance(value, base):
            return plain(value)
    if callable(getattr(value, "model_dump", None)):
        return dumped(value)
    if isinstance(value, AS_TEXT) or is_url(type(value)):
        return str(value)
    if callable(getattr(value, "tolist", None)):
        return _listed(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (Sequence, Set)) and not isinstance(value, collections.UserString):
        return list(value)
    raise TypeError(f"cannot be sent as JSON: {_name(value)}{_advice(value)}")


def nonfinite_text(value: float) -> str:
    """The text for NaN or an infinity."""
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


_KINDS = frozenset("biufOSU")
"""numpy's kinds of data that JSON has a form for (not datetime64, timedelta64, complex, records)."""


def _listed(value: Any) -> Any:
    """An array as lists, an array's scalar as Python's. Raises for what would not be the same number."""
    dtype = getattr(value, "dtype", None)
    if getattr(dtype, "kind", "O") not in _KINDS:
        raise TypeError(f"cannot be sent as JSON: {_name(value)} of {dtype}: convert it, as with .astype(str)")
    plain = value.tolist()
    if type(plain) is type(value):  # longdouble: Python has no such number
        raise TypeError(f"cannot be sent as JSON: {_name(value)}: convert it to float")
    return plain


def utc_if_odd(value: datetime) -> datetime:
    """The same instant in UTC, where its offset has seconds, which RFC 3339 (section 5.6) cannot write."""
    offset = value.utcoffset()
    return value if offset is None or not offset % _MINUTE else value.astimezone(UTC)


_MINUTE = timedelta(minutes=1)


def _name(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _advice(value: Any) -> str:
    if callable(getattr(value, "get_secret_value", None)):
        return " (a secret is never written)"
    if isinstance(value, Coroutine):
        return " (await it; a plain function has what ends in _sync)"
    return ""

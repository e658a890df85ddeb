"""Type hints, nested to a depth, with values of them: what hypothesis draws, and a list of every base type."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import enum
import ipaddress
import itertools
import math
import pathlib
import typing
import uuid
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import msgspec
import pydantic
from hypothesis import strategies as st

__all__ = ["BASES", "Typed", "typed"]


class Typed(NamedTuple):
    """A hint and a value of it."""

    hint: Any
    value: Any


class Color(enum.Enum):
    RED = "red"
    NAN = "NaN"


class Mixed(enum.Enum):
    TEXT = "x"
    NUMBER = 1
    NOTHING = None


class Flags(enum.IntFlag):
    R = 1
    W = 2


class Point(NamedTuple):
    x: int
    y: float


class User(pydantic.BaseModel):
    first_name: str = pydantic.Field(alias="firstName")
    score: float | None = None


class Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True, extra="forbid")
    at: dt.datetime
    pair: tuple[int, str]

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def doubled(self) -> int:
        return 2 * self.pair[0]


class Words(pydantic.RootModel[list[str]]):
    pass


ZONES: Any = (
    st.none()
    | st.just(dt.UTC)
    | st.integers(-86_000, 86_000).map(lambda seconds: dt.timezone(dt.timedelta(seconds=seconds)))
)
MOMENTS = st.datetimes(dt.datetime(1900, 1, 1), dt.datetime(2100, 1, 1), timezones=ZONES)
TEXT = st.text(max_size=5) | st.sampled_from(["NaN", "Infinity", "1", "null", "2026-01-01", "\u2028"])
INTEGERS = st.integers() | st.integers(-3, 3)
FLOATS = st.floats() | st.sampled_from([math.nan, math.inf, 0.0, 1.0])

SCALARS: dict[Any, st.SearchStrategy[Any]] = {
    str: TEXT,
    int: INTEGERS,
    float: FLOATS,
    bool: st.booleans(),
    None: st.none(),
    bytes: st.binary(max_size=4),
    dt.datetime: MOMENTS,
    dt.date: st.dates(),
    dt.time: st.times(),
    dt.timedelta: st.timedeltas(),
    Decimal: st.decimals(allow_nan=False),
    uuid.UUID: st.uuids(),
    Color: st.sampled_from(Color),
    Mixed: st.sampled_from(Mixed),
    Flags: st.integers(0, 3).map(Flags),
    Fraction: st.fractions(),
    pathlib.PurePosixPath: TEXT.filter(lambda text: "\0" not in text).map(pathlib.PurePosixPath),
    ipaddress.IPv4Address: st.ip_addresses(v=4),
    ipaddress.IPv6Address: st.ip_addresses(v=6),
    ipaddress.IPv4Network: st.ip_addresses(v=4).map(ipaddress.IPv4Network),
    Literal[1, "a", None]: st.sampled_from([1, "a", None]),
    typing.LiteralString: TEXT,
}
CLASSES: dict[Any, st.SearchStrategy[Any]] = {
    Point: st.builds(Point, INTEGERS, FLOATS),
    User: st.builds(User, firstName=TEXT, score=st.none() | FLOATS),
    Strict: st.builds(Strict, at=MOMENTS, pair=st.tuples(INTEGERS, TEXT)),
    Words: st.lists(TEXT).map(Words),
    pydantic.HttpUrl: st.just(pydantic.HttpUrl("https://example.org/a?b=1")),
}
BASES: dict[Any, st.SearchStrategy[Any]] = {**SCALARS, **CLASSES}

_KEYS = (str, int, bytes, dt.date, uuid.UUID, Decimal, Color, Flags)
_HASHED = (str, int, bool, bytes, dt.date, uuid.UUID, Fraction)
_names = itertools.count()

_Pair = tuple[Any, st.SearchStrategy[Any]]


def _sized(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(strategy, max_size=3)


def _dict_of(draw: st.DrawFn, value: _Pair) -> tuple[Any, st.SearchStrategy[Any]]:
    key = draw(st.sampled_from(_KEYS))
    return dict[key, value[0]], st.dictionaries(SCALARS[key], value[1], max_size=3)  # type: ignore[valid-type]


def _of_list(hint: Any, make: Callable[[list[Any]], Any]) -> Callable[[st.DrawFn, _Pair], _Pair]:
    return lambda draw, value: (hint[value[0]], _sized(value[1]).map(make))


def _set_of(draw: st.DrawFn, value: _Pair) -> _Pair:
    member = draw(st.sampled_from(_HASHED))
    return set[member], st.sets(SCALARS[member], max_size=3)  # type: ignore[valid-type]


def _mapping(hint: Any, make: Callable[[dict[str, Any]], Any]) -> Callable[[st.DrawFn, _Pair], _Pair]:
    return lambda draw, value: (hint[str, value[0]], st.dictionaries(TEXT, value[1], max_size=3).map(make))


def _optional(draw: st.DrawFn, value: _Pair) -> _Pair:
    return typing.Optional[value[0]], st.none() | value[1]  # noqa: UP045


def _annotated(draw: st.DrawFn, value: _Pair) -> _Pair:
    return typing.Annotated[value[0], "noted"], value[1]


_ONE: list[Callable[[st.DrawFn, _Pair], _Pair]] = [
    _of_list(list, list),
    _of_list(collections.deque, collections.deque),
    _of_list(collections.abc.Iterable, list),
    _dict_of,
    _set_of,
    _mapping(collections.OrderedDict, collections.OrderedDict),
    _mapping(collections.abc.Mapping, dict),
    _mapping(MappingProxyType, MappingProxyType),
    _mapping(collections.defaultdict, lambda value: collections.defaultdict(None, value)),
    _optional,
    _annotated,
]


def _tuple_of(parts: list[_Pair]) -> _Pair:
    hints = tuple(hint for hint, _ in parts)
    return tuple[hints], st.tuples(*(strategy for _, strategy in parts))  # type: ignore[valid-type]


def _union_of(parts: list[_Pair]) -> _Pair:
    hints = tuple(hint for hint, _ in parts)
    return typing.Union[hints], st.one_of([strategy for _, strategy in parts])  # noqa: UP007


def _class_by(make: Callable[[str, dict[str, Any]], Any]) -> Callable[[list[_Pair]], _Pair]:
    def pair(parts: list[_Pair]) -> _Pair:
        fields = {f"f{index}": hint for index, (hint, _) in enumerate(parts)}
        made = make(f"Made{next(_names)}", fields)
        values = {f"f{index}": strategy for index, (_, strategy) in enumerate(parts)}
        return made, st.fixed_dictionaries(values).map(lambda given: made(**given))

    return pair


_MANY: list[Callable[[list[_Pair]], _Pair]] = [
    _tuple_of,
    _union_of,
    _union_of,
    _class_by(lambda name, fields: dataclasses.make_dataclass(name, fields.items())),
    _class_by(typing.TypedDict),  # type: ignore[arg-type]
    _class_by(lambda name, fields: msgspec.defstruct(name, fields.items())),
    _class_by(lambda name, fields: NamedTuple(name, list(fields.items()))),
]


@st.composite
def _pairs(draw: st.DrawFn, depth: int) -> _Pair:
    if depth == 0 or draw(st.integers(0, 4)) == 0:
        hint = draw(st.sampled_from(list(BASES)))
        return hint, BASES[hint]
    if draw(st.booleans()):
        return draw(st.sampled_from(_ONE))(draw, draw(_pairs(depth - 1)))
    parts = draw(st.lists(_pairs(depth - 1), min_size=2, max_size=3))
    return draw(st.sampled_from(_MANY))(parts)


@st.composite
def typed(draw: st.DrawFn, depth: int = 3) -> Typed:
    """A hint, nested to that depth, and a value of it."""
    hint, values = draw(_pairs(depth))
    return Typed(hint, draw(values))

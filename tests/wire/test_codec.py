"""Type hints: read as what was written, or refused by name."""

from __future__ import annotations

import collections
import collections.abc
import dataclasses
import datetime as dt
import enum
import ipaddress
import math
import pathlib
import typing
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from types import MappingProxyType
from typing import Annotated, Any, Generic, Literal, TypedDict, TypeVar

import msgspec
import pydantic
import pytest

from loom.model.errors import InvalidInput, UsageError
from loom.wire.codec import Codec, codec_of, convert
from loom.wire.data import canonical, encode_value
from loom.wire.json import decode

T = TypeVar("T")
Either = TypeVar("Either", int, str)
UserId = typing.NewType("UserId", int)
UTC = dt.UTC
NOON = dt.datetime(2026, 1, 2, 12, 0, 0, 500, UTC)


@dataclasses.dataclass
class A:
    a: int


Bound = TypeVar("Bound", bound=A)


@dataclasses.dataclass
class B:
    b: int


@dataclasses.dataclass
class Point:
    x: float
    y: float


@dataclasses.dataclass
class Wider(A):
    more: int = 0


class TA(TypedDict):
    a: int


class TB(TypedDict):
    b: int


class SA(msgspec.Struct):
    a: int


class SB(msgspec.Struct):
    b: int


class PA(pydantic.BaseModel):
    kind: Literal["a"] = "a"


class PB(pydantic.BaseModel):
    kind: Literal["b"] = "b"
    at: dt.datetime | None = None


class Mixed(enum.Enum):
    X = "x"
    Y = 1
    Z = None


class Color(enum.Enum):
    RED = "red"


class Flags(enum.Flag):
    R = 1
    W = 2


class Number(enum.IntEnum):
    ONE = 1


class Pair(typing.NamedTuple):
    x: int
    y: float = 0.0


@dataclasses.dataclass
class Event:
    """A class with fields that msgspec does not take."""

    payload: A | B
    at: dt.datetime | str
    children: list[Event] = dataclasses.field(default_factory=list)
    late: str = dataclasses.field(init=False, default="")


class Loose(TypedDict):
    one: A | B
    other: typing.NotRequired[int]


@dataclasses.dataclass
class Box(Generic[T]):
    value: T


@dataclasses.dataclass
class Metrics:
    name: str
    loss: float
    scores: list[float] = dataclasses.field(default_factory=list)
    by_name: dict[str, tuple[str, float]] = dataclasses.field(default_factory=dict)
    inner: Metrics | None = None


class Fast(msgspec.Struct, array_like=True):
    name: str
    loss: float


class Cat(msgspec.Struct, tag="cat"):
    name: str
    weight: float


class Dog(msgspec.Struct, tag="dog"):
    name: float
    weight: str


COMING_BACK: list[tuple[Any, Any]] = [
    *((A | B, value) for value in (A(1), B(1))),
    *((A | Wider, value) for value in (A(1), Wider(1, 2))),
    *((TA | TB, value) for value in (TA(a=1), TB(b=1))),
    *((SA | SB, value) for value in (SA(1), SB(1))),
    *((PA | PB, value) for value in (PA(), PB(), PB(at=NOON))),
    *((Annotated[PA | PB, pydantic.Field(discriminator="kind")], value) for value in (PA(), PB())),
    *((A | PA | None, value) for value in (A(1), PA(), None)),
    *((A | dict[str, Any], value) for value in (A(1), {"x": 1}, {"a": 1, "b": 2})),
    *((str | A, value) for value in ("x", A(1))),
    *((str | PA, value) for value in ("x", PA())),
    *((str | dt.datetime, value) for value in ("x", NOON)),
    *((dt.date | dt.datetime | dt.time, value) for value in (NOON, NOON.date(), NOON.time())),
    *((uuid.UUID | str, value) for value in (uuid.UUID(int=1), "x")),
    *((Decimal | float, value) for value in (Decimal("1.50"), 1.5)),
    *((float | int | None, value) for value in (1.0, 1, None, -math.inf)),
    *((float | str, value) for value in (1.5, "x")),
    *((list[int] | tuple[str, str], value) for value in ([1], ("a", "b"))),
    *((int | Mixed, value) for value in (2, Mixed.X)),
    *((Mixed, value) for value in Mixed),
    *((Flags, value) for value in (Flags.R, Flags.R | Flags.W)),
    *((Literal[1, "a", None], value) for value in (1, "a", None)),
    *((Literal[Color.RED, "b"], value) for value in (Color.RED, "b")),
    *((Literal[True, 0], value) for value in (True, 0)),
    (Number, Number.ONE),
    (object | A, A(1)),
    (list[A | B], [A(1), B(1)]),
    (dict[str, A | B], {"k": B(1)}),
    (dict[int, A | B | None], {1: B(1), 2: None}),
    (tuple[A | B, int], (B(1), 1)),
    (tuple[A | B, ...], (B(1), A(1))),
    (Box[int], Box(1)),
    (Box[A | B], Box(B(1))),
    (Box[float], Box(math.inf)),
    (Event, Event(B(1), "x", [Event(A(1), NOON)])),
    (list[Event] | None, [Event(B(1), NOON)]),
    (Loose, {"one": B(1), "other": 1}),
    (UserId, UserId(5)),
    (T, 5),
    (Bound, A(1)),
    (Either, "x"),
    (typing.LiteralString, "x"),
    (typing.Final[int], 5),
    (Sequence[int], [1]),
    (Iterable[int], [1]),
    (Iterable[A | B], [B(1)]),
    (collections.abc.Set[int], {1}),
    (Mapping[str, int], {"a": 1}),
    (collections.deque[int], collections.deque([1, 2])),
    (collections.deque[A | B], collections.deque([A(1), B(2)])),
    (collections.OrderedDict[str, int], collections.OrderedDict(b=1, a=2)),
    (collections.Counter[str], collections.Counter("aab")),
    (collections.Counter[int], collections.Counter([1, 1])),
    (collections.defaultdict[str, list[int]], collections.defaultdict(list, a=[1])),
    (MappingProxyType[str, int], MappingProxyType({"a": 1})),
    (collections.ChainMap[str, int], collections.ChainMap({"a": 1}, {"b": 2})),
    (pathlib.Path, pathlib.Path("a/b")),
    (pathlib.PurePosixPath | None, pathlib.PurePosixPath("/a")),
    (Fraction, Fraction(1, 3)),
    (Fraction | float, Fraction(1, 3)),
    (ipaddress.IPv4Address, ipaddress.IPv4Address("10.0.0.1")),
    (ipaddress.IPv4Network | ipaddress.IPv4Address, ipaddress.IPv4Network("10.0.0.0/8")),
    (ipaddress.IPv6Interface, ipaddress.IPv6Interface("::1/64")),
    (Pair, Pair(1, math.inf)),
    (pydantic.HttpUrl, pydantic.HttpUrl("https://example.org/a?b")),
    (float, math.inf),
    (list[float | None], [1.0, None, -math.inf]),
    (set[float], {math.inf}),
    (Metrics, Metrics("NaN", math.inf, [1.0, -math.inf], {"a": ("Infinity", math.inf)}, Metrics("x", -math.inf))),
    (Fast, Fast("NaN", math.inf)),
    (Cat | Dog, Cat("NaN", math.inf)),
    (Cat | Dog, Dog(math.inf, "NaN")),
]


def back(hint: Any, value: Any) -> Any:
    """The value as a reader of that hint gets it."""
    return Codec(hint).read(decode(encode_value(value)))


@pytest.mark.parametrize(("hint", "value"), COMING_BACK, ids=[f"{hint}-{value}" for hint, value in COMING_BACK])
def test_a_value_comes_back(hint: Any, value: Any) -> None:
    read = back(hint, value)
    assert read == value
    assert type(read) is type(value)
    assert Codec(hint).fault(value) is None


@pytest.mark.parametrize(
    "hint", [float, float | None, Annotated[float, "loss"], Decimal | float, TypeVar("F", bound=float)]
)
def test_nan_comes_back_where_the_hint_is_a_float(hint: Any) -> None:
    assert encode_value(math.nan) == b'"NaN"'
    if Codec(hint).fault(math.nan) is None:
        assert math.isnan(back(hint, math.nan))
    else:  # as text it is a Decimal, too
        assert hint == Decimal | float


class Lax(pydantic.BaseModel):
    loss: float
    best: float | None = None


class Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True)
    loss: float
    at: dt.datetime
    pair: tuple[int, str]


def test_nan_in_models_comes_back() -> None:
    read = back(Lax, Lax(loss=math.nan, best=-math.inf))
    assert math.isnan(read.loss)
    assert read.best == -math.inf
    strict = Strict(loss=math.inf, at=NOON, pair=(1, "a"))
    assert back(Strict, strict) == strict


REFUSED: list[tuple[Any, str]] = [
    (complex, "complex"),
    (type[A], "type"),
    (Callable[[int], str], "Callable"),
    (range, "range"),
    (Color | complex, "complex"),
    (list[dict[str, complex]], "complex"),
    (Box[complex], "complex"),
    (dict[tuple[int, int], int], "tuple"),
    (dict[bool, int], "bool"),
    (dict[int | str, int], "int | str"),
    (dict[Mixed, int], "Mixed"),
    (bytes | str, "bytes"),
    (pathlib.Path | str | None, "Path"),
    (pydantic.SecretStr, "SecretStr"),
]


@pytest.mark.parametrize(("hint", "named"), REFUSED, ids=[str(hint) for hint, _ in REFUSED])
def test_a_hint_whose_values_would_not_come_back_is_refused(hint: Any, named: str) -> None:
    with pytest.raises(UsageError) as raised:
        codec_of(hint)
    assert named in str(raised.value)


class Plain:
    pass


class Proto(typing.Protocol):
    a: int


class Text(str):
    pass


class Alike(enum.Enum):
    NUMBER = 1
    OTHER = 1.0
    TEXT = "x"
    DAY = dt.date(2026, 1, 1)
    DAY_TOO = "2026-01-01"


class Deep(msgspec.Struct):
    payload: A | B


class Secret(pydantic.BaseModel):
    password: pydantic.SecretStr


class HoldsSecrets(pydantic.BaseModel):
    inner: list[Secret | None] = []


class TwoNames(pydantic.BaseModel):
    x: int = pydantic.Field(serialization_alias="out")


class Left(pydantic.BaseModel):
    x: int = pydantic.Field(exclude=True)


@pydantic.dataclasses.dataclass
class Aliased:
    x: int = pydantic.Field(alias="y")


@dataclasses.dataclass
class Holds:
    plain: Plain


@pytest.mark.parametrize(
    ("hint", "named"),
    [
        (Plain, "Plain"),
        (Plain | None, "Plain"),
        (list[Plain], "Plain"),
        (Holds, "Plain"),
        (Proto, "Proto"),
        (Text, "declare str"),
        (Alike, "written alike"),
        (Deep, "dataclass"),
        (Secret, r"Secret.password is a secret"),
        (HoldsSecrets, r"Secret.password is a secret"),
        (dict[str, HoldsSecrets], r"Secret.password is a secret"),
        (TwoNames, r"TwoNames.x is written as 'out'"),
        (Left, r"Left.x is required, and excluded"),
        (Aliased, "aliases"),
    ],
)
def test_a_class_whose_values_would_not_come_back_is_refused(hint: Any, named: str) -> None:
    with pytest.raises(UsageError) as raised:
        codec_of(hint)
    assert named in str(raised.value)


@dataclasses.dataclass
class One:
    x: int


@dataclasses.dataclass
class Same:
    x: int


AMBIGUOUS: list[tuple[Any, Any]] = [
    (str | dt.datetime, "2026-01-02T00:00:00"),
    (uuid.UUID | str, str(uuid.UUID(int=1))),
    (One | Same, Same(1)),
    (list[One | Same], [One(1), Same(1)]),
    (dict[str, list[int] | set[int]], {"k": {1}}),
    (A | dict[str, int], {"a": 1}),
    (float | str, math.nan),
    (Decimal | float, math.nan),
    (Decimal | float, math.inf),
    (list[str | dt.datetime], ["x", "2026-01-02T00:00:00"]),
]


@pytest.mark.parametrize(("hint", "value"), AMBIGUOUS)
def test_a_value_that_would_be_read_as_another_is_found(hint: Any, value: Any) -> None:
    fault = Codec(hint).fault(value)
    assert fault is not None
    assert "would be read as" in fault


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (Point | A, Point(1, 2)),
        (Point | A, Point(1, math.nan)),
        (list[Point | A], [Point(1, 0.5)]),
        (dict[str, float] | list[float], {"a": 1}),
    ],
)
def test_an_int_where_a_float_is_declared_is_that_float(hint: Any, value: Any) -> None:
    """As type checkers have it."""
    assert Codec(hint).fault(value) is None


def test_an_int_that_no_float_equals_is_found() -> None:
    assert "would be read as" in str(Codec(Point | A).fault(Point(2**60 + 1, 0.0)))


def test_a_value_that_is_none_of_a_union_is_found() -> None:
    assert "Expected" in str(Codec(A | B).fault({"c": 1}))
    assert Codec(int | None).fault("x") is None  # one JSON is one value here: not looked at


def test_a_subclass_is_written_whole_and_read_as_its_base() -> None:
    assert encode_value(Wider(1, 2)) == b'{"a":1,"more":2}'
    assert back(A, Wider(1, 2)) == A(1)
    assert Codec(A | B).fault(Wider(1, 2)) is None


def test_the_part_that_does_not_fit_is_named() -> None:
    for hint, value, field in (
        (Event, {"payload": {"c": 1}, "at": "x"}, "in.payload"),
        (list[Event], [{"payload": {"a": 1}}], "in[0]"),
        (Event, {"payload": {"a": 1}, "at": "x", "children": [{"payload": 1, "at": "x"}]}, "in.children[0].payload"),
        (collections.deque[int], ["x"], "in[0]"),
        (Mixed, 7, "in"),
        (Fraction, "x", "in"),
        (dict[str, pathlib.Path], {"a": 1}, "in[...]"),
    ):
        with pytest.raises(InvalidInput) as raised:
            convert(value, hint, field="in")
        assert raised.value.details == {"field": field}


def test_an_annotation_whose_metadata_has_no_hash_is_read() -> None:
    assert convert(1, Annotated[int, {}]) == 1


def test_what_is_plain_is_not_converted() -> None:
    for hint in (Any, object, str, int, bool, None, dict, list):
        assert codec_of(hint).plain
    assert not codec_of(float).plain


def test_canonical_is_of_what_is_written() -> None:
    assert canonical({"b": math.nan, "a": {1: math.inf}}) == b'{"a":{"1":"Infinity"},"b":"NaN"}'
    assert canonical({2, 10, 1}) == canonical({10, 1, 2})


@pytest.mark.parametrize("beside", [None, "null", math.nan, {1: "a"}])
def test_sets_are_in_order_whatever_stands_beside_them(beside: Any) -> None:
    """0 and 8 have one place in a small set: the first that came is the first that is given."""
    one, other = {0, 8}, {8, 0}
    assert list(one) != list(other)
    assert canonical([beside, {"k": one}]) == canonical([beside, {"k": other}])


def test_of_a_union_the_first_member_counts_as_it_is_declared() -> None:
    @dataclasses.dataclass
    class Alike:
        a: int

    assert codec_of(A | Alike).read({"a": 1}) == A(1)
    assert codec_of(Alike | A).read({"a": 1}) == Alike(1)
    assert codec_of(list[Alike | A]).read([{"a": 1}]) == [Alike(1)]

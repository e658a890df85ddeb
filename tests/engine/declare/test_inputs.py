"""Inputs: from calls to JSON, from JSON to arguments as their types."""

from __future__ import annotations

import collections.abc
import datetime
import enum
import uuid
from typing import Annotated, Any, Literal

import msgspec
import pytest

from loom.engine.declare.inputs import encode_input
from loom.engine.declare.producer import Producer
from loom.model import limits
from loom.model.errors import InvalidInput, LimitExceeded, RemoteProtocolError
from loom.wire.json import encode
from tests.engine.producers import Item, Model, Movie, Point, producer, taking


class Cat(msgspec.Struct, tag="cat"):
    lives: int


class Dog(msgspec.Struct, tag="dog"):
    name: str


class Color(enum.Enum):
    RED = "red"


def decoded(made: Producer[Any, Any], input: Any) -> Any:
    return made.inputs.decode(input if isinstance(input, bytes) else encode(input))


VALUES: list[tuple[Any, Any, Any]] = [
    (int, 3, 3),
    (float, 3, 3.0),
    (str, "x", "x"),
    (bool, True, True),
    (list[int], [1, 2], [1, 2]),
    (tuple[int, str], [1, "a"], (1, "a")),
    (set[int], [1, 2], {1, 2}),
    (dict[str, int], {"k": 1}, {"k": 1}),
    (dict[int, str], {"1": "a"}, {1: "a"}),
    (int | str, "a", "a"),
    (int | None, None, None),
    (Literal["a", "b"], "b", "b"),
    (Color, "red", Color.RED),
    (datetime.datetime, "2026-01-02T03:04:05Z", datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)),
    (uuid.UUID, "12345678-1234-5678-1234-567812345678", uuid.UUID("12345678-1234-5678-1234-567812345678")),
    (bytes, "aGk=", b"hi"),
    (Item, {"name": "a"}, Item("a")),
    (Point, {"x": 1}, Point(1)),
    (Movie, {"title": "a"}, {"title": "a"}),
    (Model, {"size": 1}, Model(size=1)),
    (list[Item], [{"name": "a", "count": 2}], [Item("a", 2)]),
    (dict[str, Model], {"k": {"size": 1}}, {"k": Model(size=1)}),
    (Cat | Dog, {"type": "dog", "name": "rex"}, Dog("rex")),
    (Item | None, {"name": "a"}, Item("a")),
    (Annotated[int, msgspec.Meta(gt=0)], 3, 3),
    (Any, {"any": ["thing"]}, {"any": ["thing"]}),
    (collections.abc.Mapping[str, int], {"k": 1}, {"k": 1}),
]


@pytest.mark.parametrize(("hint", "json", "value"), VALUES, ids=lambda value: str(value)[:40])
def test_a_value_comes_as_its_type(hint: Any, json: Any, value: Any) -> None:
    assert decoded(taking(a=hint, b=int), {"a": json, "b": 1}) == {"a": value, "b": 1}


@pytest.mark.parametrize(("hint", "json", "value"), VALUES, ids=lambda value: str(value)[:40])
def test_a_bare_value_is_short_for_the_sole_parameter(hint: Any, json: Any, value: Any) -> None:
    assert decoded(taking(a=hint), json) == {"a": value}


@pytest.mark.parametrize(("hint", "json", "value"), VALUES, ids=lambda value: str(value)[:40])
@pytest.mark.parametrize("more", [0, 1])
def test_what_is_called_with_is_what_comes(hint: Any, json: Any, value: Any, more: int) -> None:
    made = taking(a=hint, b=int) if more else taking(a=hint)
    rest = {"b": 1} if more else {}
    for bound in (made.inputs.bind((value,), rest), made.inputs.bind((), {"a": value, **rest})):
        assert decoded(made, bytes(encode_input(bound))) == {"a": value, **rest}


WRONG: list[tuple[Any, Any, str]] = [
    (int, "x", "a"),
    (int, 1.5, "a"),
    (int, True, "a"),
    (str, 1, "a"),
    (list[int], [1, "x"], "a[1]"),
    (Item, {"name": 1}, "a.name"),
    (Item, {}, "a"),
    (Point, {"x": 1, "y": "z"}, "a.y"),
    (Movie, {"title": 1}, "a.title"),
    (Model, {"size": "big"}, "a.size"),
    (Model, {"size": 1, "tags": [1]}, "a.tags[0]"),
    (list[Item], [{"name": "a"}, {"name": 2}], "a[1].name"),
    (dict[str, Item], {"k": {"name": 2}}, "a[...].name"),
    (Color, "blue", "a"),
    (Literal["a"], "b", "a"),
    (Annotated[int, msgspec.Meta(gt=0)], 0, "a"),
    (Cat | Dog, {"type": "cow"}, "a.type"),
]


@pytest.mark.parametrize(("hint", "json", "field"), WRONG, ids=lambda value: str(value)[:40])
def test_a_value_that_does_not_fit_names_the_field(hint: Any, json: Any, field: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        decoded(taking(a=hint, b=int), {"a": json, "b": 1})
    assert raised.value.details == {"field": field}
    assert raised.value.message.startswith(field)


@pytest.mark.parametrize(
    ("input", "field"),
    [
        ({"a": 1}, "b"),
        ({"b": 1}, "a"),
        ({"a": 1, "b": 1, "c": 1}, "c"),
        ([1, 2], "input"),
        (7, "input"),
        (None, "a"),
    ],
)
def test_names_must_fit(input: Any, field: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        decoded(taking(a=int, b=int), input)
    assert raised.value.details == {"field": field}


@pytest.mark.parametrize(("input", "field"), [({"m": 1}, "m"), ({}, "n"), ({"n": 1, "m": 2}, "n"), (None, "n")])
def test_an_object_for_the_sole_parameter_is_read_by_names(input: Any, field: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        decoded(taking(n=int), input)
    assert raised.value.details["field"] in (field, "m")


@pytest.mark.parametrize("hint", [int, str, list[int], Annotated[int, msgspec.Meta(gt=0)], Cat])
def test_null_for_the_sole_parameter_is_a_missing_one_unless_it_takes_null(hint: Any) -> None:
    with pytest.raises(InvalidInput, match=r"^n: missing$") as raised:
        decoded(taking(n=hint), None)
    assert raised.value.details == {"field": "n"}
    assert decoded(taking(n=hint | None), None) == {"n": None}
    assert decoded(taking(n=Any), None) == {"n": None}


def test_a_sole_parameter_by_name() -> None:
    assert decoded(taking(n=int), {"n": 3}) == {"n": 3}
    assert decoded(taking(data=dict[str, int]), {"data": {"a": 1}}) == {"data": {"a": 1}}
    assert decoded(taking(data=dict[str, int]), {"a": 1, "b": 2}) == {"data": {"a": 1, "b": 2}}


def test_defaults_are_the_function_s() -> None:
    made = taking(a=int, b=(int, 5))
    assert decoded(made, {"a": 1}) == {"a": 1}
    assert decoded(taking(a=(int, 5)), None) == {}
    assert decoded(taking(a=(int, 5)), {}) == {}
    assert decoded(taking(), None) == {}
    assert decoded(taking(), {}) == {}


def test_a_model_s_default_is_not_an_empty_object() -> None:
    made = taking(item=(Item, Item("default", 9)))
    assert decoded(made, bytes(encode_input(made.inputs.bind((), {})))) == {}
    assert decoded(made, bytes(encode_input(made.inputs.bind((Item("given"),), {})))) == {"item": Item("given")}
    assert decoded(made, {"name": "x"}) == {"item": Item("x")}


def keyword_only(a: int, *, b: int = 2) -> None: ...


@pytest.mark.parametrize(
    ("given", "named", "field"),
    [
        ((1, 2), {}, None),
        ((1,), {"a": 1}, "a"),
        ((), {}, "a"),
        ((), {"a": 1, "c": 1}, "c"),
    ],
)
def test_a_call_that_does_not_fit_the_signature_is_refused(
    given: tuple[Any, ...], named: dict[str, Any], field: str | None
) -> None:
    with pytest.raises(InvalidInput) as raised:
        producer(keyword_only).inputs.bind(given, named)
    assert raised.value.details.get("field") == field


def test_a_call_gives_an_object_by_names() -> None:
    assert producer(keyword_only).inputs.bind((1,), {"b": 3}) == {"a": 1, "b": 3}


@pytest.mark.parametrize(
    ("made", "given", "settled"),
    [
        (taking(n=int), 1, {"n": 1}),
        (taking(n=int), {"n": 1}, {"n": 1}),
        (taking(n=(int, 1)), None, {}),
        (taking(data=dict[str, int]), {"a": 1}, {"data": {"a": 1}}),
        (taking(a=int, b=(int, 5)), {"b": 1, "a": 2}, {"a": 2, "b": 1}),
        (taking(a=(int, 5), b=(int, 5)), None, {}),
        (taking(), None, {}),
        (taking(item=Item), {"name": "x"}, {"name": "x"}),
        (taking(item=(Item, Item("default"))), None, None),
        (taking(item=Item | None), {"name": "x"}, {"item": {"name": "x"}}),
    ],
)
def test_an_input_has_one_form(made: Producer[..., Any], given: Any, settled: Any) -> None:
    """That of a call of the function, whatever short form it came in; settled again it stays as it is."""
    once = made.inputs.settled(encode_input(given))
    assert bytes(once) == bytes(encode_input(settled))
    assert bytes(made.inputs.settled(once)) == bytes(once)
    assert made.inputs.settled(once, canonical=True) is once


def test_an_input_that_does_not_fit_is_not_settled() -> None:
    with pytest.raises(InvalidInput):
        taking(n=int).inputs.settled(encode_input("x"))


def test_an_input_that_its_one_form_makes_too_deep_or_long_is_refused_at_once() -> None:
    """Else it would be stored, and no worker could read it."""
    deep = msgspec.Raw(b"[" * limits.JSON_DEPTH + b"]" * limits.JSON_DEPTH)
    with pytest.raises(InvalidInput, match="deeper"):
        taking(n=Any).inputs.settled(deep)
    long = msgspec.Raw(b'"%s"' % (b"x" * (limits.INPUT_BYTES - 2)))
    with pytest.raises(LimitExceeded):
        taking(n=Any).inputs.settled(long)


@pytest.mark.parametrize(
    ("made", "one", "other", "same"),
    [
        (taking(n=float), 1, {"n": 1.0}, True),
        (taking(n=int), 1, 2, False),
        (taking(n=Any), 1, True, False),
        (taking(item=Item), {"name": "x"}, msgspec.to_builtins(Item("x")), True),
        (taking(item=Item), {"name": "x"}, {"name": "y"}, False),
        (taking(n=(int, 5)), None, 5, False),
        (taking(n=int), "x", "x", False),
    ],
)
def test_inputs_are_the_same_if_they_mean_the_same(made: Producer[..., Any], one: Any, other: Any, same: bool) -> None:
    """As their types; what cannot be read is not known to be. A default of the function may change: it is no value."""
    assert made.inputs.same(encode_input(one), encode_input(other)) is same


class Angry(msgspec.Struct):
    n: int

    def __post_init__(self) -> None:
        if self.n < 0:
            raise ValueError("must not be negative")
        if self.n > 100:
            raise KeyError("a bug")


def test_what_a_validator_runs_into_is_the_input_s_fault() -> None:
    made = taking(a=Angry, b=int)
    for n, text in ((-1, "must not be negative"), (101, "a bug")):
        with pytest.raises(InvalidInput, match=text) as raised:
            decoded(made, {"a": {"n": n}, "b": 1})
        assert raised.value.details["field"].startswith("a")


@pytest.mark.parametrize("data", [b"{", b"nope", b'{"a": "\xff"}', b"[" * 100_000 + b"]" * 100_000])
def test_input_that_is_no_json_is_refused(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        taking(a=int, b=int).inputs.decode(data)


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("value", [object(), "lone \ud800", nested(1000), nested(100_000)])
def test_input_that_cannot_be_sent_is_refused(value: Any) -> None:
    with pytest.raises(InvalidInput) as raised:
        encode_input(value)
    assert raised.value.details == {"field": "input"}


def test_input_that_is_too_large_is_refused() -> None:
    with pytest.raises(LimitExceeded):
        encode_input("x" * limits.INPUT_BYTES)


def test_equal_inputs_have_equal_bytes() -> None:
    assert bytes(encode_input({"b": 1, "a": [Item("x")]})) == bytes(
        encode_input({"a": [{"count": 1, "name": "x"}], "b": 1})
    )


@pytest.mark.parametrize("model", [Item, Point, Movie, Model])
def test_a_sole_model_is_the_schema(model: Any) -> None:
    schema = taking(a=model).inputs.schema
    assert schema["type"] == "object"
    assert "a" not in schema["properties"]
    assert len(schema["required"]) == 1


def test_references_name_what_stands_at_the_root() -> None:
    schema = taking(a=list[Item], b=list[Model], c=int).inputs.schema
    assert schema["properties"]["a"] == {"type": "array", "items": {"$ref": "#/$defs/Item"}}
    assert schema["$defs"].keys() == {"Item"}
    assert "size" in schema["properties"]["b"]["items"]["properties"]


def test_a_type_without_a_schema_is_open() -> None:
    class Custom:
        @classmethod
        def model_validate(cls, value: Any) -> Any: ...

    assert taking(a=Custom).inputs.schema["properties"] == {"a": {}}

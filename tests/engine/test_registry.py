"""Producers by name: their kinds, their signatures, their inputs."""

from __future__ import annotations

import collections.abc
import dataclasses
import datetime
import enum
import functools
import inspect
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from typing import Annotated, Any, Literal, NotRequired, Optional, TypedDict

import msgspec
import pydantic
import pytest

import loom
from loom.engine.registry import Options, Producer, Registry, Retry, encode_input, make_producer
from loom.model import limits
from loom.model.chunk import Chunk, Progress, Result
from loom.model.errors import InvalidInput, LimitExceeded, RemoteProtocolError, UnknownProducer, UsageError
from loom.wire.json import encode


class Item(msgspec.Struct):
    name: str
    count: int = 1


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


class Movie(TypedDict):
    title: str
    year: NotRequired[int]


class Model(pydantic.BaseModel):
    size: int
    tags: list[str] = []


class Cat(msgspec.Struct, tag="cat"):
    lives: int


class Dog(msgspec.Struct, tag="dog"):
    name: str


class Color(enum.Enum):
    RED = "red"


def producer(target: Callable[..., Any], **options: Any) -> Producer[Any, Any]:
    return make_producer("p", target, **options)


def taking(**hints: Any) -> Producer[Any, Any]:
    """A producer with parameters of these types; a pair is a type and a default."""

    async def target() -> None: ...

    parameters = []
    for name, hint in hints.items():
        hint, default = hint if isinstance(hint, tuple) else (hint, inspect.Parameter.empty)
        target.__annotations__[name] = hint
        parameters.append(inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default))
    target.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return producer(target)


def decoded(made: Producer[Any, Any], input: Any) -> Any:
    return made.decode(input if isinstance(input, bytes) else encode(input))


# --- kinds -----------------------------------------------------------------------------------------------------------


async def agen(n: int) -> AsyncIterator[int]:
    yield n


async def coroutine(n: int) -> int:
    return n


def generator(n: int) -> Iterator[int]:
    yield n


def function(n: int) -> int:
    return n


def wraps_agen(n: int) -> AsyncIterator[int]:
    return agen(n)


def wraps_coroutine(n: int) -> Awaitable[int]:
    return coroutine(n)


@functools.wraps(agen)
def decorated(*args: Any, **kwargs: Any) -> Any:
    return agen(*args, **kwargs)


class Streams:
    """Streams."""

    async def stream(self, n: int) -> AsyncIterator[int]:
        yield n

    async def execute(self, n: int) -> int:
        return n


class Executes:
    async def execute(self, n: int) -> int:
        return n


class ExecutesInAThread:
    def execute(self, n: int) -> int:
        return n


@pytest.mark.parametrize(
    ("target", "kind", "yields", "returns"),
    [
        (agen, "async-generator", int, Any),
        (coroutine, "coroutine", Any, int),
        (generator, "generator", int, Any),
        (function, "function", Any, int),
        (wraps_agen, "async-generator", int, Any),
        (wraps_coroutine, "coroutine", Any, int),
        (decorated, "async-generator", int, Any),
        (Streams, "async-generator", int, Any),
        (Executes, "coroutine", Any, int),
        (ExecutesInAThread, "function", Any, int),
    ],
)
def test_every_kind_of_producer(target: Any, kind: str, yields: Any, returns: Any) -> None:
    made = producer(target)
    assert (made.kind, made.yields, made.returns) == (kind, yields, returns)
    assert [parameter.name for parameter in made.parameters] == ["n"]
    assert made.threaded is (kind in ("generator", "function"))


def test_called_plainly_it_is_the_function() -> None:
    assert producer(function)(3) == 3
    assert list(producer(generator)(3)) == [3]
    assert repr(producer(function)) == "<Producer 'p': function>"


def test_a_class_is_made_anew_for_each_call() -> None:
    class Counting:
        def __init__(self) -> None:
            self.count = 0

        def execute(self) -> int:
            self.count += 1
            return self.count

    made = producer(Counting)
    assert (made(), made()) == (1, 1)


def gen_of(hint: Any) -> Callable[..., Any]:
    async def made() -> Any:
        yield 1

    made.__annotations__["return"] = hint
    return made


def fn_of(hint: Any) -> Callable[..., Any]:
    def made() -> Any: ...

    made.__annotations__["return"] = hint
    return made


@pytest.mark.parametrize(
    ("target", "yields", "returns"),
    [
        (gen_of(AsyncIterator[str]), str, Any),
        (gen_of(AsyncIterator[str | Progress]), str, Any),
        (gen_of(AsyncIterator[Progress | Chunk[Any]]), Any, Any),
        (gen_of(AsyncIterator[str | Result[int]]), str, int),
        (gen_of(AsyncIterator[Optional[str]]), str | None, Any),  # noqa: UP045
        (gen_of(AsyncIterator), Any, Any),
        (gen_of(Any), Any, Any),
        (fn_of(Iterator[int]), int, Any),
        (fn_of(Generator[int, None, str]), int, str),
        (fn_of(Generator[int, None, None]), int, Any),
        (fn_of(None), Any, Any),
        (fn_of(list[int]), Any, list[int]),
    ],
)
def test_what_it_yields_and_returns_is_as_it_says(target: Any, yields: Any, returns: Any) -> None:
    made = producer(target)
    assert (made.yields, made.returns) == (yields, returns)


# --- signatures ------------------------------------------------------------------------------------------------------


def ctx_first(ctx: loom.Context, n: int) -> None: ...
def ctx_last(n: int, ctx: loom.Context) -> None: ...
def ctx_between(a: int, context: loom.Context, b: int) -> None: ...
def ctx_keyword(n: int, *, ctx: loom.Context) -> None: ...
def ctx_optional(n: int, ctx: loom.Context | None = None) -> None: ...
def ctx_annotated(n: int, ctx: Annotated[loom.Context, "mine"]) -> None: ...
def ctx_none(n: int) -> None: ...


@pytest.mark.parametrize(
    ("target", "context"),
    [
        (ctx_first, "ctx"), (ctx_last, "ctx"), (ctx_between, "context"), (ctx_keyword, "ctx"), (ctx_optional, "ctx"),
        (ctx_annotated, "ctx"), (ctx_none, None),
    ],
)  # fmt: skip
def test_the_context_is_found_by_its_annotation_and_is_no_input(target: Any, context: str | None) -> None:
    made = producer(target)
    assert made.context == context
    assert context not in {parameter.name for parameter in made.parameters}


def args(*values: int) -> None: ...
def kwargs(**values: int) -> None: ...
def positional(n: int, /) -> None: ...
def positional_ctx(ctx: loom.Context, /) -> None: ...
def args_of_ctx(*ctx: loom.Context) -> None: ...
def two(ctx: loom.Context, other: loom.Context) -> None: ...
def unknown(n: NoSuchType) -> None: ...  # type: ignore[name-defined]  # noqa: F821
def broken(n: 1 / 0) -> None: ...  # type: ignore[valid-type]
def unreadable(n: set[Item] | list[Item]) -> None: ...


class Empty: ...


class Demanding:
    def __init__(self, db: str) -> None: ...

    def execute(self) -> None: ...


class NotCallable:
    stream = 1


@pytest.mark.parametrize(
    ("target", "named"),
    [
        (args, "values"), (kwargs, "values"), (positional, "'n'"), (positional_ctx, "'ctx'"), (args_of_ctx, "'ctx'"),
        (two, "'ctx' and 'other'"), (unknown, "NoSuchType"), (broken, "annotation"), (unreadable, "'n'"),
        (Empty, "neither"), (Demanding, "without arguments"), (NotCallable, "neither"),
    ],
)  # fmt: skip
def test_a_signature_that_cannot_be_called_by_name_is_refused(target: Any, named: str) -> None:
    with pytest.raises(UsageError, match=named):
        producer(target)


@pytest.mark.parametrize("name", ["", "a b", "x" * 200, "ü", "-a", "a/b"])
def test_a_name_that_cannot_stand_in_a_url_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput):
        make_producer(name, function)
    with pytest.raises(InvalidInput):
        producer(function).renamed(name)


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_types_that_are_local_to_where_it_stands_are_found(kind: str) -> None:
    class Local(msgspec.Struct):
        a: int

    async def asynchronous(item: Local) -> Local:
        return item

    def synchronous(item: Local) -> Local:
        return item

    made = producer(asynchronous if kind == "async" else synchronous, namespace={"Local": Local})
    assert decoded(made, {"a": 1}) == {"item": Local(1)}
    assert made.returns is Local


# --- input -----------------------------------------------------------------------------------------------------------

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
    for bound in (made.bind((value,), rest), made.bind((), {"a": value, **rest})):
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
    assert decoded(made, bytes(encode_input(made.bind((), {})))) == {}
    assert decoded(made, bytes(encode_input(made.bind((Item("given"),), {})))) == {"item": Item("given")}
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
        producer(keyword_only).bind(given, named)
    assert raised.value.details.get("field") == field


def test_a_call_gives_an_object_by_names() -> None:
    assert producer(keyword_only).bind((1,), {"b": 3}) == {"a": 1, "b": 3}


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
    once = made.settled(encode_input(given))
    assert bytes(once) == bytes(encode_input(settled))
    assert made.settled(once) is once


def test_an_input_that_does_not_fit_is_not_settled() -> None:
    with pytest.raises(InvalidInput):
        taking(n=int).settled(encode_input("x"))


def test_an_input_that_its_one_form_makes_too_deep_or_long_is_refused_at_once() -> None:
    """Else it would be stored, and no worker could read it."""
    deep = msgspec.Raw(b"[" * limits.JSON_DEPTH + b"]" * limits.JSON_DEPTH)
    with pytest.raises(InvalidInput, match="deeper"):
        taking(n=Any).settled(deep)
    long = msgspec.Raw(b'"%s"' % (b"x" * (limits.INPUT_BYTES - 2)))
    with pytest.raises(LimitExceeded):
        taking(n=Any).settled(long)


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
    assert made.same(encode_input(one), encode_input(other)) is same


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
        taking(a=int, b=int).decode(data)


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


# --- what is told of it ----------------------------------------------------------------------------------------------


def described(a: int, b: Item, c: str = "x") -> None:
    """Does it.

    At length.
    """


def test_what_others_are_told() -> None:
    info = producer(described).info()
    assert (info.name, info.description) == ("p", "Does it.")
    schema = info.input_schema
    assert schema["required"] == ["a", "b"]
    assert schema["properties"]["a"] == {"type": "integer"}
    assert schema["additionalProperties"] is False


def test_a_sole_model_is_the_schema() -> None:
    assert "size" in taking(a=Model).info().input_schema["properties"]
    assert producer(Streams).info().description == "Streams."


def test_a_type_without_a_schema_is_open() -> None:
    class Custom: ...

    assert taking(a=Custom).info().input_schema["properties"] == {"a": {}}


# --- options ---------------------------------------------------------------------------------------------------------


def test_using_gives_options_for_one_run() -> None:
    made = producer(function)
    bound = made.using(key="k", timeout=datetime.timedelta(minutes=1))
    assert bound.producer is made
    assert bound.options == Options(key="k", timeout=datetime.timedelta(minutes=1))


def test_renamed_is_the_same_under_another_name() -> None:
    made = producer(function, retry=Retry(mode="continue"), max_crashes=7, requires=("db",))
    other = made.renamed("q")
    assert other.name == "q"
    assert (other.target, other.retry, other.max_crashes, other.requires, other.continues) == (
        made.target, made.retry, 7, ("db",), True,
    )  # fmt: skip


# --- the registry ----------------------------------------------------------------------------------------------------


def test_names_are_unique_and_found() -> None:
    registry = Registry()
    made = producer(function)
    registry.add(made)
    assert registry.get("p") is registry.find("p") is made
    assert list(registry) == [made]
    assert len(registry) == 1
    with pytest.raises(UsageError, match="'p'"):
        registry.add(producer(generator))


def test_an_unknown_name_is_told_what_there_is() -> None:
    registry = Registry()
    with pytest.raises(UnknownProducer, match="none"):
        registry.get("x")
    registry.add(producer(function))
    with pytest.raises(UnknownProducer, match="there are: p") as raised:
        registry.get("x" * 1000)
    assert len(raised.value.details["actor"]) <= 80
    assert registry.find("x") is None

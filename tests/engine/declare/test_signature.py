"""From functions and classes to producers: kinds, contexts, types of what is said."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from typing import Annotated, Any, Optional

import msgspec
import pytest

import loom
from loom.engine.declare.signature import make_producer
from loom.model.chunk import Chunk, Progress, Result
from loom.model.errors import InvalidInput, UsageError
from loom.wire.json import encode
from tests.engine.producers import Streams, agen, coroutine, function, generator, producer

# --- kinds -----------------------------------------------------------------------------------------------------------


def wraps_agen(n: int) -> AsyncIterator[int]:
    return agen(n)


def wraps_coroutine(n: int) -> Awaitable[int]:
    return coroutine(n)


@functools.wraps(agen)
def decorated(*args: Any, **kwargs: Any) -> Any:
    return agen(*args, **kwargs)


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
    assert (made.driver.kind, made.yields.hint, made.returns.hint) == (kind, yields, returns)
    assert [parameter.name for parameter in made.inputs.parameters] == ["n"]
    assert made.driver.threaded is (kind in ("generator", "function"))


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
    assert (made.yields.hint, made.returns.hint) == (yields, returns)


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
    assert made.driver.looks_back is (context is not None)
    assert context not in {parameter.name for parameter in made.inputs.parameters}


def args(*values: int) -> None: ...
def kwargs(**values: int) -> None: ...
def positional(n: int, /) -> None: ...
def positional_ctx(ctx: loom.Context, /) -> None: ...
def args_of_ctx(*ctx: loom.Context) -> None: ...
def two(ctx: loom.Context, other: loom.Context) -> None: ...
def unknown(n: NoSuchType) -> None: ...  # type: ignore[name-defined]  # noqa: F821
def broken(n: 1 / 0) -> None: ...  # type: ignore[valid-type]
def unreadable(n: complex) -> None: ...


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


def untyped_ctx(n: int, ctx): ...  # type: ignore[no-untyped-def]
def untyped_ctx_first(ctx, n: int): ...  # type: ignore[no-untyped-def]
def untyped_ctx_by_name(n: int, *, ctx=None): ...  # type: ignore[no-untyped-def]


class Untyped:
    def stream(self, n: int, ctx): ...  # type: ignore[no-untyped-def]


@pytest.mark.parametrize("target", [untyped_ctx, untyped_ctx_first, untyped_ctx_by_name, Untyped])
def test_a_ctx_without_annotation_is_refused_with_the_line_to_write(target: Any) -> None:
    with pytest.raises(UsageError, match=r"write ctx: loom\.Context$"):
        producer(target)


def test_a_ctx_of_ones_own_type_is_input() -> None:
    def mine(ctx: dict[str, int]) -> None: ...

    assert [parameter.name for parameter in producer(mine).inputs.parameters] == ["ctx"]


@pytest.mark.parametrize("name", ["", "a b", "x" * 200, "ü", "-a", "a/b"])
def test_a_name_that_cannot_stand_in_a_url_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput):
        make_producer(name, function)


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_types_that_are_local_to_where_it_stands_are_found(kind: str) -> None:
    class Local(msgspec.Struct):
        a: int

    async def asynchronous(item: Local) -> Local:
        return item

    def synchronous(item: Local) -> Local:
        return item

    made = producer(asynchronous if kind == "async" else synchronous, namespace={"Local": Local})
    assert made.inputs.decode(encode({"a": 1})) == {"item": Local(1)}
    assert made.returns.hint is Local

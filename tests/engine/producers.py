"""Functions and types to make producers of."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, NotRequired, TypedDict

import msgspec
import pydantic

from loom.engine.declare.producer import Producer
from loom.engine.declare.signature import make_producer


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


async def agen(n: int) -> AsyncIterator[int]:
    yield n


async def coroutine(n: int) -> int:
    return n


def generator(n: int) -> Iterator[int]:
    yield n


def function(n: int) -> int:
    return n


class Streams:
    """Streams."""

    async def stream(self, n: int) -> AsyncIterator[int]:
        yield n

    async def execute(self, n: int) -> int:
        return n

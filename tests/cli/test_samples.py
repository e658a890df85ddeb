"""Sample inputs fit what they are samples of."""

from __future__ import annotations

import shlex
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
import pydantic
import pytest

import loom
from loom.cli.samples import curl_line, sample
from loom.cli.shows import compact


class Colour(Enum):
    RED = "red"


class Item(msgspec.Struct):
    name: str
    colour: Colour
    tags: list[str]
    size: float = 1.0


app = loom.App()


class Person(pydantic.BaseModel):
    first_name: str = pydantic.Field(alias="firstName")
    born: datetime
    site: pydantic.AnyUrl


class Circle(pydantic.BaseModel):
    kind: Literal["circle"]
    at: date


class Square(pydantic.BaseModel):
    kind: Literal["square"]


@app.actor
async def nothing() -> None: ...


@app.actor
async def many(
    a: int, b: str | None, c: Literal["x", "y"], d: bool, e: list[Item], f: dict[str, int], g: int = 1
) -> None: ...


@app.actor
async def item(item: Item) -> None: ...


@app.actor
async def beside(n: int, item: Item, items: list[Item] | None) -> None: ...


@app.actor
async def texts(born: date, long: timedelta, id: UUID, price: Decimal, person: Person) -> None: ...


@app.actor
async def either(shape: Annotated[Circle | Square, pydantic.Field(discriminator="kind")]) -> None: ...


@app.actor
async def anything(value: Any) -> None: ...


def test_a_conversation_is_not_empty() -> None:
    talking = loom.App()

    @talking.actor
    async def chat(messages: list[loom.ChatMessage], model: str | None = None) -> None: ...

    (producer,) = talking.registry
    assert sample(producer.info().input_schema) == {"messages": [{"role": "user", "content": "hello"}]}


def test_a_sole_value_stands_for_itself() -> None:
    counting = loom.App()

    @counting.actor
    async def count(n: int) -> None: ...

    line = curl_line(counting, "http://127.0.0.1:8700", keyed=False)
    assert line == "curl -N 'localhost:8700/actors/count/stream?input=3'"


def test_an_actor_that_no_sample_fits_is_passed_over() -> None:
    picky = loom.App()

    @picky.actor
    async def odd(code: Annotated[str, msgspec.Meta(pattern="^x{9}$")]) -> None: ...

    assert curl_line(picky, "http://127.0.0.1:8700", keyed=False) == "curl http://127.0.0.1:8700/actors"

    @picky.actor
    async def count(n: int) -> None: ...

    assert "/actors/count/stream?input=3" in curl_line(picky, "http://127.0.0.1:8700", keyed=False)


@pytest.mark.parametrize("name", [producer.name for producer in app.registry])
def test_a_sample_is_accepted(name: str) -> None:
    producer = app.registry.get(name)
    producer.inputs.decode(compact(sample(producer.info().input_schema)).encode())


def test_the_line_can_be_pasted() -> None:
    line = curl_line(app, "http://127.0.0.1:8700", keyed=False)
    assert shlex.split(line) == ["curl", "-N", "localhost:8700/actors/nothing/stream?input=%7B%7D"]
    assert len(line) < 80
    assert '-H "authorization: Bearer $LOOM_API_KEY"' in curl_line(app, "http://127.0.0.1:8700", keyed=True)
    assert curl_line(loom.App(), "http://127.0.0.1:8700", keyed=False) == "curl http://127.0.0.1:8700/actors"

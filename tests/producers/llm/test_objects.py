"""Structured answers: partial values, the value, and why there is none."""

from __future__ import annotations

import dataclasses
from typing import Any, TypedDict

import msgspec
import pytest
from pydantic import BaseModel, Field

from loom.model import limits
from loom.model.errors import InvalidInput, LimitExceeded, RemoteProtocolError, UsageError
from loom.model.parts import FinishReasonPart, ObjectPart
from loom.producers.llm import MarkovWriter
from loom.testing import FakeAI

pytestmark = pytest.mark.anyio


class Step(msgspec.Struct):
    text: str
    minutes: int = 0


class Recipe(msgspec.Struct):
    name: str
    steps: list[Step]


class Person(BaseModel):
    name: str
    age: int = Field(ge=0)


@dataclasses.dataclass
class Point:
    x: int
    y: int


class Pair(TypedDict):
    a: str


async def test_partial_values_while_it_streams() -> None:
    ai = FakeAI(['{"name": "So', "up", '", "steps": [{"text": "Boil', '", "min', 'utes": 3}', "]}"])
    parts = [part async for part in ai.stream_object(Recipe, "hi")]
    assert [part.partial for part in parts] == [
        {"name": "So"},
        {"name": "Soup"},
        {"name": "Soup", "steps": [{"text": "Boil"}]},
        {"name": "Soup", "steps": [{"text": "Boil", "minutes": 3}]},
        {"name": "Soup", "steps": [{"text": "Boil", "minutes": 3}]},
    ]
    assert [part.done for part in parts] == [False] * 4 + [True]
    assert parts[-1].value == Recipe("Soup", [Step("Boil", 3)])
    assert ai.calls[0].schema is not None


async def test_partial_values_of_a_long_answer_are_not_its_square() -> None:
    """Each is a copy of all that has come: given at each piece they would be 10,500 copies here."""
    text = msgspec.json.encode([{"text": "Boil", "minutes": 3}] * 1500).decode()
    pieces = [text[at : at + 4] for at in range(0, len(text), 4)]
    assert len(pieces) > 10_000
    parts = [part async for part in FakeAI(['{"value": ', *pieces, "}"]).stream_object(list[Step], "hi")]
    assert len(parts) < 800
    assert parts[-1].value == [Step("Boil", 3)] * 1500
    sizes = [len(part.partial) for part in parts]
    assert sizes == sorted(sizes)


@pytest.mark.parametrize(
    ("type", "text", "value"),
    [
        (Recipe, '{"name": "Soup", "steps": []}', Recipe("Soup", [])),
        (Person, '{"name": "Ann", "age": 4}', Person(name="Ann", age=4)),
        (Point, '```json\n{"x": 1, "y": 2}\n```', Point(1, 2)),
        (Pair, '{"a": "b"}', {"a": "b"}),
        (list[Point], '{"value": [{"x": 1, "y": 2}]}', [Point(1, 2)]),
        (int, '{"value": 3}', 3),
        (dict[str, int], '{"value": {"a": 1}}', {"a": 1}),
        (Point, 'As asked [1], [see](there): {"x": 1, "y": 2} [2]', Point(1, 2)),
    ],
)
async def test_a_value_of_each_kind(type: Any, text: str, value: Any) -> None:
    assert await FakeAI([*text]).complete("hi", output=type) == value


async def test_a_value_that_is_no_object_is_told_without_its_wrapping() -> None:
    parts = [part async for part in FakeAI(['{"value": [1', ", 2", "]}"]).stream_object(list[int], "hi")]
    assert parts == [ObjectPart([]), ObjectPart([1]), ObjectPart([1, 2]), ObjectPart([1, 2], True, [1, 2])]


@pytest.mark.parametrize(
    ("type", "text", "field"),
    [
        (Recipe, '{"name": "Soup", "steps": [{"text": 1}]}', ".steps[0].text"),
        (Recipe, '{"name": "Soup"}', ""),
        (Person, '{"name": "Ann", "age": -4}', ".age"),
        (Point, '{"x": "1", "y": 2}', ".x"),
        (int, '{"other": 3}', "value"),
    ],
)
async def test_an_answer_that_does_not_fit_names_the_field(type: Any, text: str, field: str) -> None:
    with pytest.raises(RemoteProtocolError, match="the model's answer is no") as caught:
        await FakeAI([text]).complete("hi", output=type)
    assert caught.value.details == {"field": field, "answer": text}


@pytest.mark.parametrize("type", [int, list[int], Point | None])
async def test_a_bare_list_is_not_the_object_that_was_asked_for(type: Any) -> None:
    with pytest.raises(RemoteProtocolError, match="no whole JSON"):
        await FakeAI(["[1, 2]"]).complete("hi", output=type)


@pytest.mark.parametrize("text", ["I would rather not.", '{"x": 1, y: 2}', '{"x": 1', ""])
async def test_an_answer_that_is_no_json_is_told(text: str) -> None:
    with pytest.raises(RemoteProtocolError, match="no Point: no whole JSON"):
        await FakeAI([text or ""]).complete("hi", output=Point)


async def test_an_answer_that_was_cut_or_refused_says_so() -> None:
    with pytest.raises(LimitExceeded, match="max_tokens"):
        await FakeAI(['{"x": 1', FinishReasonPart("length")]).complete("hi", output=Point)
    with pytest.raises(InvalidInput, match="refused") as caught:
        await FakeAI(["I", FinishReasonPart("content_filter")]).complete("hi", output=Point)
    assert caught.value.code == "content_filter"


async def test_an_answer_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "AI_ANSWER_CHARACTERS", 10)
    with pytest.raises(LimitExceeded, match="longer than 10"):
        await FakeAI(['{"x": "', "aaaaaaaa"]).complete("hi", output=Point)


async def test_what_cannot_be_asked_for_is_told_at_the_call() -> None:
    with pytest.raises(UsageError, match="has no JSON Schema"):
        FakeAI([]).stream_object(asyncio_event_type(), "hi")
    with pytest.raises(UsageError, match="prose"):
        await MarkovWriter(rate=0).complete("hi", output=Point)


def asyncio_event_type() -> type[Any]:
    class Odd:
        pass

    return Odd

"""Schemas of answers, as providers want them."""

from __future__ import annotations

from typing import Any

import msgspec
from pydantic import BaseModel

from loom.engine.declare.schemas import schema_of
from loom.producers.llm.schemas import object_schema, strict_schema


class Leaf(BaseModel):
    n: int = 0


class Node(msgspec.Struct):
    name: str
    leaf: Leaf
    children: list[Node] = []


class Plain(msgspec.Struct):
    a: int
    b: str | None = None


def test_what_is_no_object_is_wrapped() -> None:
    assert object_schema(Plain)[1] == ""
    schema, field = object_schema(list[int])
    assert field == "value"
    assert schema["properties"]["value"] == {"type": "array", "items": {"type": "integer"}}
    assert object_schema(dict[str, int])[1] == "value"


def test_the_strict_form_closes_objects_and_requires_all() -> None:
    strict = strict_schema(schema_of(Node))
    assert strict is not None
    for part in strict, *strict["$defs"].values():
        assert part["additionalProperties"] is False
        assert part["required"] == list(part["properties"])
    assert "default" not in str(strict)


def test_what_the_strict_form_cannot_say_is_only_advice() -> None:
    class Open(msgspec.Struct):
        fields: dict[str, int]

    class Anything(msgspec.Struct):
        value: Any

    assert strict_schema(schema_of(Open)) is None
    assert strict_schema(schema_of(Anything)) is None

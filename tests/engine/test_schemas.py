"""Schemas of types: whole, with every reference where it is looked for."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from pydantic import BaseModel

from loom.engine.schemas import fields_schema, schema_of
from loom.model.errors import UsageError


class Leaf(BaseModel):
    n: int = 0


class Node(msgspec.Struct):
    name: str
    leaf: Leaf
    children: list[Node] = []


class Plain(msgspec.Struct):
    a: int
    b: str | None = None


def refs(part: Any) -> set[str]:
    if isinstance(part, list):
        return {ref for member in part for ref in refs(member)}
    if isinstance(part, dict):
        own = {part["$ref"]} if isinstance(part.get("$ref"), str) else set()
        return own | {ref for member in part.values() for ref in refs(member)}
    return set()


def test_the_root_is_the_object_itself() -> None:
    schema = schema_of(Plain)
    assert schema["type"] == "object"
    assert "$ref" not in schema
    assert "$defs" not in schema


def test_every_reference_names_a_definition_at_the_root() -> None:
    for schema in schema_of(Node), fields_schema({"a": schema_of(Node), "b": schema_of(list[Node])}, required=["a"]):
        assert {ref.removeprefix("#/$defs/") for ref in refs(schema)} <= schema["$defs"].keys()
        assert "Node" in schema["$defs"]
        assert not any("$defs" in definition for definition in schema["$defs"].values())


def test_a_type_that_json_cannot_hold_has_none() -> None:
    with pytest.raises(UsageError, match="no JSON Schema"):
        schema_of(list[type("Custom", (), {})])  # type: ignore[misc]

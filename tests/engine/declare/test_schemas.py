"""Schemas of types: whole, with every reference where it is looked for."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
import pytest
from pydantic import BaseModel, Field, create_model

from loom.engine.declare.schemas import fields_schema, schema_of
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


def outer(name: str, kind: Any) -> Any:
    """A model around one that is called `Inner`."""
    make: Any = create_model
    inner = make("Inner", tag=(Literal["inner"], ...), value=(kind, ...))
    other = make("Other", tag=(Literal["other"], ...), inner=(inner, ...))
    either: Any = Annotated[inner | other, Field(discriminator="tag")]
    return make(name, either=(either, ...))


def test_two_classes_of_one_name_are_two_definitions() -> None:
    a, b = outer("A", int), outer("B", str)
    many: Any = list.__class_getitem__(a)
    schema = fields_schema({"a": schema_of(a), "b": schema_of(b), "more": schema_of(many)}, required=[])
    assert refs(schema) == {f"#/$defs/{name}" for name in schema["$defs"]}

    def follow(part: dict[str, Any], *path: str) -> Any:
        for key in path:
            part = part["properties"][key]
            reference = (part.get("oneOf", [part])[-1]).get("$ref")
            part = schema["$defs"][reference.rpartition("/")[2]] if reference else part
        return part

    assert follow(schema, "a", "either", "inner", "value")["type"] == "integer"
    assert follow(schema, "b", "either", "inner", "value")["type"] == "string"
    mapped = schema["properties"]["b"]["properties"]["either"]["discriminator"]["mapping"]
    assert set(mapped.values()) == refs(schema["properties"]["b"])
    assert set(schema_of(many)["$defs"]) == {"Inner", "Other"}

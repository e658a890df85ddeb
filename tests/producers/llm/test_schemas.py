"""Schemas of types, as providers want them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from pydantic import BaseModel, Field, create_model

from loom.producers.llm.schemas import object_schema, parameters_schema, schema_of, strict_schema


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
    for schema in schema_of(Node), parameters_schema({"a": Node, "b": list[Node]}, required=["a"]):
        assert {ref.removeprefix("#/$defs/") for ref in refs(schema)} <= schema["$defs"].keys()
        assert "Node" in schema["$defs"]
        assert not any("$defs" in definition for definition in schema["$defs"].values())


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
    schema = parameters_schema({"a": a, "b": b, "more": many}, required=[])
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

"""Schemas of answers, as providers take them. Pure."""

from __future__ import annotations

from typing import Any

from loom.engine.schemas import fields_schema, schema_of

__all__ = ["object_schema", "strict_schema"]

_WRAP = "value"


def object_schema(type: Any) -> tuple[dict[str, Any], str]:
    """The schema of an answer of this type, always an object's: providers ask for one. The second is the field that
    the value stands in, "" if it is the object itself. Raises `UsageError` for a type that has none."""
    schema = schema_of(type)
    if schema.get("type") == "object" and "properties" in schema:
        return schema, ""
    return fields_schema({_WRAP: schema}, required=[_WRAP]), _WRAP


def strict_schema(schema: Any) -> dict[str, Any] | None:
    """The same in the subset that OpenAI enforces: every object closed, every field required, no defaults. None if it
    cannot be said in it (an object of any fields): then the schema is only advice.

    https://platform.openai.com/docs/guides/structured-outputs, "Supported schemas".
    """
    try:
        strict: dict[str, Any] = _strict(schema)
    except ValueError:
        return None
    return strict


def _strict(schema: Any) -> Any:
    if not isinstance(schema, dict):
        return schema
    if not schema.keys() & {"type", "anyOf", "enum", "const", "$ref"}:
        raise ValueError("anything goes")
    strict = {key: value for key, value in schema.items() if key not in ("default", "title", "discriminator")}
    for key in ("$defs", "properties"):
        if key in strict:
            strict[key] = {name: _strict(part) for name, part in strict[key].items()}
    for key in ("anyOf", "prefixItems"):
        if key in strict:
            strict[key] = [_strict(part) for part in strict[key]]
    if isinstance(strict.get("items"), dict):
        strict["items"] = _strict(strict["items"])
    if strict.get("type") == "object":
        if "properties" not in strict:
            raise ValueError("an object of any fields")
        strict |= {"additionalProperties": False, "required": list(strict["properties"])}
    return {"$ref": strict["$ref"]} if "$ref" in strict and "$defs" not in strict else strict

"""Schemas of answers, as providers take them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from loom.engine.declare.schemas import fields_schema, schema_of
from loom.wire.json import encode

__all__ = ["ANSWER", "ANSWER_DESCRIPTION", "OutputMode", "object_schema", "schema_in_words", "strict_schema"]

OutputMode = Literal["json_schema", "json_object", "tool", "prompt"]
"""How a structured answer is asked for: by its schema; as any JSON object, with the schema in the prompt; as the
arguments of a tool; as text, with the schema in the prompt."""

ANSWER = "answer"
"""The name of the schema, and of the tool whose arguments are the answer."""

ANSWER_DESCRIPTION = "Gives the answer, in the form that is asked for."

_WRAP = "value"


def object_schema(type: Any) -> tuple[dict[str, Any], str]:
    """The schema of an answer of this type, always an object's: providers ask for one. The second is the field that
    the value stands in, "" if it is the object itself. Raises `UsageError` for a type that has none."""
    schema = schema_of(type)
    if schema.get("type") == "object" and "properties" in schema:
        return schema, ""
    return fields_schema({_WRAP: schema}, required=[_WRAP]), _WRAP


def schema_in_words(messages: Sequence[dict[str, Any]], schema: dict[str, Any]) -> list[dict[str, Any]]:
    """The messages, the last one of the user's with the schema behind it: templates of open models take a system
    message at the beginning only, or none."""
    words = (
        f"Answer with one JSON object and nothing else. It must conform to this JSON Schema:\n{encode(schema).decode()}"
    )
    for place in reversed(range(len(messages))):
        message = messages[place]
        if message["role"] == "user":
            return [
                *messages[:place],
                {**message, "content": _with(message.get("content"), words)},
                *messages[place + 1 :],
            ]
    return [*messages, {"role": "user", "content": words}]


def _with(content: Any, words: str) -> Any:
    if isinstance(content, list):
        return [*content, {"type": "text", "text": words}]
    return f"{content}\n\n{words}" if content else words


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

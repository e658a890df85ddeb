"""A command line to try an app with: one that can be pasted into a shell."""

from __future__ import annotations

import shlex
from typing import Any
from urllib.parse import quote

from loom.app import App
from loom.engine.declare.producer import Producer
from loom.model.errors import InvalidInput
from loom.wire.json import encode

__all__ = ["curl_line"]

_SAMPLES: dict[str, Any] = {
    "string": "hello", "integer": 3, "number": 1.5, "boolean": True, "array": [], "object": {}, "null": None,
}  # fmt: skip

_FORMATS = {
    "date-time": "2026-01-02T12:00:00Z", "date": "2026-01-02", "time": "12:00:00Z", "duration": "PT1S",
    "uuid": "00000000-0000-0000-0000-000000000001", "decimal": "1.5", "uri": "https://example.org/",
    "email": "ada@example.org", "ipv4": "127.0.0.1", "ipv6": "::1",
}  # fmt: skip
"""Texts by their format (JSON Schema Validation, section 7.3)."""


def curl_line(app: App, url: str, keyed: bool) -> str:
    """Starts the first declared actor that a sample fits, and follows it."""
    key = ' -H "authorization: Bearer $LOOM_API_KEY"' if keyed else ""
    found = next(
        ((producer.name, value) for producer in app.registry if (value := _fitting(producer)) is not None), None
    )
    if found is None:
        return f"curl {url}/actors{key}"
    name, value = found
    place = f"{url.removeprefix('http://').replace('127.0.0.1', 'localhost')}/actors/{name}/stream"
    return f"curl -N{key} {shlex.quote(f'{place}?input={_in_query(value)}')}"


def _fitting(producer: Producer[Any, Any]) -> Any:
    """A sample of its input; None if there is none that it takes, as a pattern asks for more than a schema's words."""
    value = sample(producer.info().input_schema)
    try:
        producer.inputs.decode(encode(value))
    except InvalidInput:
        return None
    return value


def _in_query(value: Any) -> str:
    """The input as a query has it: a sole value stands for its object."""
    if isinstance(value, dict) and len(value) == 1:
        (sole,) = value.values()
        value = sole if isinstance(sole, str | int | float) else value
    return quote(encode(value), safe="")


def sample(schema: Any, root: Any = None) -> Any:
    """A small value that fits a JSON Schema, as far as these words go."""
    root = schema if root is None else root
    if not isinstance(schema, dict):
        return None
    if "$ref" in schema:
        return sample(root.get("$defs", {}).get(str(schema["$ref"]).rpartition("/")[2]), root)
    for word in ("default", "const"):
        if word in schema:
            return schema[word]
    if schema.get("enum"):
        return schema["enum"][0]
    for word in ("anyOf", "oneOf"):
        if schema.get(word):
            return sample(schema[word][0], root)
    if schema.get("type") == "object":
        properties = schema.get("properties", {})
        return {name: _named(name, properties.get(name), root) for name in schema.get("required", ())}
    return _FORMATS.get(str(schema.get("format"))) or _SAMPLES.get(str(schema.get("type")))


def _named(name: str, schema: Any, root: Any) -> Any:
    """A conversation is not empty: no model takes that."""
    if name == "messages" and isinstance(schema, dict) and schema.get("type") == "array":
        return [{"role": "user", "content": "hello"}]
    return sample(schema, root)

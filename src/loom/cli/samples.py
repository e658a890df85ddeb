"""A command line to try an app with: one that can be pasted into a shell."""

from __future__ import annotations

import shlex
from typing import Any
from urllib.parse import quote

from loom.app import App
from loom.wire.json import encode

__all__ = ["curl_line"]

_SAMPLES: dict[str, Any] = {
    "string": "hello", "integer": 3, "number": 1.5, "boolean": True, "array": [], "object": {}, "null": None,
}  # fmt: skip


def curl_line(app: App, url: str, keyed: bool) -> str:
    """Starts the actor that was declared first, and follows it."""
    key = ' -H "authorization: Bearer $LOOM_API_KEY"' if keyed else ""
    actor = next((producer.info() for producer in app.registry), None)
    if actor is None:
        return f"curl {url}/actors{key}"
    place = f"{url.removeprefix('http://').replace('127.0.0.1', 'localhost')}/actors/{actor.name}/stream"
    return f"curl -N{key} {shlex.quote(f'{place}?input={_in_query(sample(actor.input_schema))}')}"


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
    if schema.get("anyOf"):
        return sample(schema["anyOf"][0], root)
    if schema.get("type") == "object":
        properties = schema.get("properties", {})
        return {name: _named(name, properties.get(name), root) for name in schema.get("required", ())}
    return _SAMPLES.get(str(schema.get("type")))


def _named(name: str, schema: Any, root: Any) -> Any:
    """A conversation is not empty: no model takes that."""
    if name == "messages" and isinstance(schema, dict) and schema.get("type") == "array":
        return [{"role": "user", "content": "hello"}]
    return sample(schema, root)

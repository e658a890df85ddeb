"""A command line to try an app with: one that can be pasted into a shell."""

from __future__ import annotations

import shlex
from typing import Any

from loom.app import App

from .shows import compact

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
    body = shlex.quote(compact({"input": sample(actor.input_schema)}))
    return f"curl -N {url}/actors/{actor.name}/stream{key} -H 'content-type: application/json' -d {body}"


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
        return {name: sample(properties.get(name), root) for name in schema.get("required", ())}
    return _SAMPLES.get(str(schema.get("type")))

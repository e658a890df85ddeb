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
    """Starts an actor and follows it; the one that is simplest to call."""
    key = ' -H "authorization: Bearer $LOOM_API_KEY"' if keyed else ""
    actors = sorted(
        (producer.info() for producer in app.registry), key=lambda info: (_size(info.input_schema), info.name)
    )
    if not actors:
        return f"curl {url}/actors{key}"
    body = shlex.quote(compact({"input": sample(actors[0].input_schema)}))
    return f"curl -N {url}/actors/{actors[0].name}/stream{key} -H 'content-type: application/json' -d {body}"


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


def _size(schema: dict[str, Any]) -> int:
    return len(schema.get("required", ())) if "$ref" not in schema else 10

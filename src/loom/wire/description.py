"""A route as data: its parameters and answers, from which the server's description (OpenAPI) is drawn. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

__all__ = ["Answer", "Parameter", "StreamForm"]


class Parameter(NamedTuple):
    """One field of a request beside its body. `where`: path, query or header. `json`: its text is JSON."""

    where: str
    name: str
    description: str
    schema: dict[str, Any] = {"type": "string"}
    json: bool = False


class StreamForm(NamedTuple):
    """An answer that comes in parts: its media type, and the JSON Schema of each part."""

    media_type: str
    item: Mapping[str, Any]


class Answer(NamedTuple):
    """One status of an operation: its meaning, and its body's type (None: no body; str: an event stream of ours).
    With `stream` it may be streamed instead."""

    description: str
    body: Any = None
    headers: tuple[str, ...] = ()
    stream: StreamForm | None = None

"""The server's description in OpenAPI 3.2, drawn from the table of operations and the types of its bodies."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

import msgspec

from loom.wire.sse import FAULT
from loom.wire.views import ErrorBody

from .operations import Answer, Operation, Parameter

__all__ = ["describe"]

_REFS = "#/components/schemas/{name}"
_ALWAYS = (400, 401, 403, 500, 503)
_WITH_BODY = (408, 413, 415, 422)
_EVENT = {
    "type": "object",
    "required": ["data"],
    "properties": {
        "id": {"type": "string", "description": "The cursor behind the chunk; for a started stream `<run>:<cursor>`."},
        "event": {"type": "string", "description": f"The chunk's type, or `{FAULT}` when the stream breaks off."},
        "data": {
            "type": "string",
            "contentMediaType": "application/json",
            "description": "The chunk, or an error body.",
        },
    },
}
_HEADERS = {
    "Location": "Where the run is found.",
    "Retry-After": "Seconds to wait before asking again.",
    "WWW-Authenticate": "Bearer.",
}


def describe(operations: Iterable[Operation]) -> dict[str, Any]:
    """The whole document."""
    operations = tuple(operations)
    types = [ErrorBody, *_types(operations)]
    schemas, components = msgspec.json.schema_components(types, ref_template=_REFS)
    by_type = dict(zip(types, schemas, strict=True))
    paths: dict[str, Any] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation, by_type)
    return {
        "openapi": "3.2.0",
        "info": {"title": "Loom", "version": "1", "description": "Runs: output that arrives over time."},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}, {}],
    }


def _types(operations: Iterable[Operation]) -> list[Any]:
    found: dict[Any, None] = {}
    for operation in operations:
        for body in (operation.body, *(answer.body for answer in operation.answers.values())):
            if body not in (None, str, dict):
                found[body] = None
    return list(found)


def _operation(operation: Operation, schemas: dict[Any, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "parameters": [_parameter(parameter) for parameter in operation.parameters],
        "responses": {str(status): _answer(answer, schemas) for status, answer in operation.answers.items()},
    }
    for status in sorted({*_ALWAYS, *operation.errors, *(_WITH_BODY if operation.body else ())}):
        described["responses"][str(status)] = _error(status, schemas)
    if operation.body:
        described["requestBody"] = {
            "required": bool(_required_fields(operation.body)),
            "content": {"application/json": {"schema": schemas[operation.body]}},
        }
    if operation.public:
        described["security"] = []
    return described


def _required_fields(body: type) -> list[str]:
    return [field.name for field in msgspec.structs.fields(body) if field.required]


def _parameter(parameter: Parameter) -> dict[str, Any]:
    form = {"schema": parameter.schema}
    return {
        "in": parameter.where,
        "name": parameter.name,
        "description": parameter.description,
        "required": parameter.where == "path",
        **({"content": {"application/json": form}} if parameter.json else form),
    }


def _answer(answer: Answer, schemas: dict[Any, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {"description": answer.description}
    if answer.body is str:
        described["content"] = {"text/event-stream": {"itemSchema": _EVENT}}
    elif answer.body is dict:
        described["content"] = {"application/json": {"schema": {"type": "object"}}}
    elif answer.body is not None:
        described["content"] = {"application/json": {"schema": schemas[answer.body]}}
    if answer.headers:
        described["headers"] = {name: _header(name) for name in answer.headers}
    return described


def _error(status: int, schemas: dict[Any, Any]) -> dict[str, Any]:
    described = _answer(Answer(HTTPStatus(status).phrase, ErrorBody), schemas)
    names = {401: ("WWW-Authenticate",), 429: ("Retry-After",), 503: ("Retry-After",)}.get(status, ())
    if names:
        described["headers"] = {name: _header(name, required=status == 401) for name in names}
    return described


def _header(name: str, *, required: bool = False) -> dict[str, Any]:
    return {"description": _HEADERS[name], "required": required, "schema": {"type": "string"}}

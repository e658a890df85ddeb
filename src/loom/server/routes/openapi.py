"""The server's description in OpenAPI 3.2, drawn from the table of operations and the types of its bodies."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

import msgspec

from loom.wire.dialect import Dialect
from loom.wire.sse import FAULT

from .operations import Answer, Operation, Parameter

__all__ = ["describe"]

_REFS = "#/components/schemas/{name}"
_ALWAYS = (400, 401, 403, 500, 503)
_WITH_BODY = (408, 413, 415)
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
    "X-Request-Id": "The run.",
    "Location": "Where the run is found.",
    "Retry-After": "Seconds to wait before asking again.",
    "WWW-Authenticate": "Bearer.",
}


def describe(operations: Iterable[Operation]) -> dict[str, Any]:
    """The whole document."""
    operations = tuple(operations)
    types = _types(operations)
    schemas, components = msgspec.json.schema_components(types, ref_template=_REFS)
    by_type = dict(zip(types, schemas, strict=True))
    paths: dict[str, Any] = {}
    for operation in operations:
        path = operation.path.replace(":path}", "}")
        paths.setdefault(path, {})[operation.method.lower()] = _operation(operation, by_type)
    return {
        "openapi": "3.2.0",
        "info": {"title": "Loom", "version": "1", "description": "Runs: output that arrives over time."},
        "tags": [_tag(dialect) for dialect in _dialects(operations)],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}, {}],
    }


def _dialects(operations: Iterable[Operation]) -> list[Dialect]:
    found = {operation.dialect.name: operation.dialect for operation in operations if operation.dialect is not None}
    return list(found.values())


def _tag(dialect: Dialect) -> dict[str, Any]:
    resumes = "A client that was cut off can read on." if dialect.resumable else "It has no resumption."
    return {"name": dialect.name, "description": f"{dialect.summary} {resumes}"}


def _types(operations: Iterable[Operation]) -> list[Any]:
    found: dict[Any, None] = {}
    for operation in operations:
        for body in (operation.error_body, operation.body, *(answer.body for answer in operation.answers.values())):
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
        described["responses"][str(status)] = _error(status, operation.error_body, schemas)
    if operation.body:
        described["requestBody"] = {
            "required": bool(_required_fields(operation.body)),
            "content": {"application/json": {"schema": schemas[operation.body]}},
        }
    if operation.dialect is not None:
        described["tags"] = [operation.dialect.name]
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
    content: dict[str, Any] = {}
    if answer.body is str:
        content["text/event-stream"] = {"itemSchema": _EVENT}
    elif answer.body is dict:
        content["application/json"] = {"schema": {"type": "object"}}
    elif answer.body is not None:
        content["application/json"] = {"schema": schemas[answer.body]}
    if answer.stream is not None:
        content[answer.stream.media_type] = {"itemSchema": answer.stream.item}
    if content:
        described["content"] = content
    if answer.headers:
        described["headers"] = {name: _header(name) for name in answer.headers}
    return described


def _error(status: int, body: type, schemas: dict[Any, Any]) -> dict[str, Any]:
    described = _answer(Answer(HTTPStatus(status).phrase, body), schemas)
    names = {401: ("WWW-Authenticate",), 429: ("Retry-After",), 503: ("Retry-After",)}.get(status, ())
    if names:
        described["headers"] = {name: _header(name, required=status == 401) for name in names}
    return described


def _header(name: str, *, required: bool = False) -> dict[str, Any]:
    return {"description": _HEADERS[name], "required": required, "schema": {"type": "string"}}

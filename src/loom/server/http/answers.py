"""Answers: JSON, and every error in its one form with its one status."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from loom.model.errors import LoomError, code_of
from loom.wire.dialects import openai
from loom.wire.json import encode
from loom.wire.views import error_body

__all__ = ["empty", "error_answer", "json_answer", "openai_error", "raw_json"]

_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
_RETRY_SOON = 1.0


def json_answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """`value` as JSON. Answers tell of what changes: no cache may keep them."""
    return raw_json(encode(value), status, headers)


def empty(status: int = 204) -> Response:
    """No content."""
    return Response(None, status, _HEADERS)


def error_answer(error: LoomError, headers: Mapping[str, str] | None = None) -> Response:
    """``{"error": {code, message, retryable, details}}`` with the code's status (`loom.model.errors.CODES`)."""
    status = code_of(error.code).http
    return raw_json(error_body(error.info), status, {**_about(error, status), **(headers or {})})


def openai_error(error: LoomError, headers: Mapping[str, str] | None = None) -> Response:
    """The same in OpenAI's form. Its clients repeat requests by themselves for some statuses, whatever the reason: they
    are told whether that may help (``x-should-retry``)."""
    status = openai.status_of(error.info)
    retry = {"X-Should-Retry": "true" if error.retryable else "false"}
    return raw_json(openai.error_body(error.info), status, {**_about(error, status), **retry, **(headers or {})})


def _about(error: LoomError, status: int) -> dict[str, str]:
    if status == 401:
        return {"WWW-Authenticate": 'Bearer realm="loom"'}  # RFC 9110, section 11.6.1
    if error.retryable and status in (429, 503):
        return {"Retry-After": str(math.ceil(error.details.get("retry_after") or _RETRY_SOON))}
    return {}


def raw_json(data: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """What is JSON already."""
    return Response(data, status, {**_HEADERS, **(headers or {})}, "application/json")

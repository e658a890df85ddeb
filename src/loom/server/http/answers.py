"""Answers: JSON, and every error in its one form with its one status."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from starlette.responses import Response

from loom.model.errors import ErrorInfo, LoomError, code_of
from loom.wire.dialect import Refusal
from loom.wire.json import encode
from loom.wire.views import error_body

__all__ = ["Refuse", "empty", "error_answer", "json_answer", "raw", "raw_json", "refusing"]

Refuse = Callable[..., Response]
"""Shows a `LoomError` (and more headers) as an answer."""

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


def refusing(refuse: Callable[[ErrorInfo], Refusal]) -> Refuse:
    """The same in a dialect's form."""

    def answer(error: LoomError, headers: Mapping[str, str] | None = None) -> Response:
        shown = refuse(error.info)
        more = {**_about(error, shown.status), **shown.headers, **(headers or {})}
        return raw(shown.body, shown.status, {"Content-Type": shown.content_type, **more})

    return answer


def _about(error: LoomError, status: int) -> dict[str, str]:
    if status == 401:
        return {"WWW-Authenticate": 'Bearer realm="loom"'}  # RFC 9110, section 11.6.1
    if error.retryable and status in (429, 503):
        return {"Retry-After": str(math.ceil(error.details.get("retry_after") or _RETRY_SOON))}
    return {}


def raw_json(data: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """What is JSON already."""
    return raw(data, status, {"Content-Type": "application/json", **(headers or {})})


def raw(data: bytes, status: int, headers: Mapping[str, str]) -> Response:
    """`data` as it is; its type is among the `headers`."""
    return Response(data, status, {**_HEADERS, **headers})

"""Errors in OpenAI's form: ``{"error": {"message", "type", "param", "code"}}``."""

from __future__ import annotations

import msgspec

from loom.model.errors import ErrorInfo, RunError, class_of, code_of
from loom.wire.dialect import Refusal
from loom.wire.json import encode

__all__ = ["ApiError", "ApiErrorBody", "error_body", "refuse", "status_of"]


class ApiError(msgspec.Struct, frozen=True):
    """`param` names the field of the request that is wrong; `code` is Loom's own, or OpenAI's word where it has one."""

    message: str
    type: str
    param: str | None
    code: str


class ApiErrorBody(msgspec.Struct, frozen=True):
    """Every error answer of these routes."""

    error: ApiError


_CODES = {
    "unknown_producer": "model_not_found",
    "unauthorized": "invalid_api_key",
    "limit_exceeded": "rate_limit_exceeded",
}
_PASSED_ON = frozenset({"invalid_input", "limit_exceeded", "unavailable"})
"""What a producer met and did not handle that says something of the request, or that repeating it may help. Anything
else, its own key refused for one, is its failure: the caller's key is good."""


def _code(error: ErrorInfo) -> str:
    cause = error.details.get("code") if error.code == "run_failed" else None
    return str(cause) if cause in _PASSED_ON else error.code


def status_of(error: ErrorInfo) -> int:
    """The HTTP status: that of the code, but 400 for input that does not fit, as OpenAI has it."""
    status = code_of(_code(error)).http
    return 400 if status == 422 else status


def error_body(error: ErrorInfo) -> bytes:
    """The JSON of an error answer, and the data of a stream's last event when it breaks off."""
    code = _code(error)
    param = "model" if code == "unknown_producer" else error.details.get("field") or None
    return encode(ApiErrorBody(ApiError(error.message, _type(code), param, _CODES.get(code, code))))


def refuse(error: ErrorInfo) -> Refusal:
    """The answer. OpenAI's clients repeat requests by themselves for some statuses, for any reason: ``x-should-retry``
    says if that may help."""
    return Refusal(status_of(error), error_body(error), {"X-Should-Retry": "true" if error.retryable else "false"})


def _type(code: str) -> str:
    row = code_of(code)
    if row.http == 429:
        return "rate_limit_error"
    if row.http >= 500 or issubclass(class_of(code), RunError):
        return "server_error"
    return "invalid_request_error"

"""Errors in OpenAI's form, with the status its clients know them by."""

from __future__ import annotations

from typing import Any

import pytest

from loom.model.errors import ErrorInfo
from loom.wire.dialects.openai.errors import error_body, refuse, status_of
from loom.wire.json import decode


def met(code: str, **details: Any) -> ErrorInfo:
    """What a run says when its producer met an error of Loom's."""
    return ErrorInfo("run_failed", "it failed", False, {"type": "X", "code": code, **details})


@pytest.mark.parametrize(
    ("info", "status", "type", "code", "param"),
    [
        (ErrorInfo("unknown_producer", "m"), 404, "invalid_request_error", "model_not_found", "model"),
        (ErrorInfo("unauthorized", "m"), 401, "invalid_request_error", "invalid_api_key", None),
        (ErrorInfo("forbidden", "m"), 403, "invalid_request_error", "forbidden", None),
        (
            ErrorInfo("invalid_input", "m", False, {"field": "messages[0].role"}),
            400, "invalid_request_error", "invalid_input", "messages[0].role",
        ),
        (ErrorInfo("protocol_error", "m"), 400, "invalid_request_error", "protocol_error", None),
        (ErrorInfo("too_large", "m"), 413, "invalid_request_error", "too_large", None),
        (ErrorInfo("limit_exceeded", "m"), 429, "rate_limit_error", "rate_limit_exceeded", None),
        (ErrorInfo("unavailable", "m", True), 503, "server_error", "unavailable", None),
        (ErrorInfo("internal", "m"), 500, "server_error", "internal", None),
        (ErrorInfo("run_failed", "m"), 500, "server_error", "run_failed", None),
        (ErrorInfo("deadline_exceeded", "m"), 504, "server_error", "deadline_exceeded", None),
        (ErrorInfo("cancelled", "m"), 409, "server_error", "cancelled", None),
        (ErrorInfo("the_authors_own", "m"), 500, "server_error", "the_authors_own", None),
        (met("limit_exceeded"), 429, "rate_limit_error", "rate_limit_exceeded", None),
        (met("unavailable"), 503, "server_error", "unavailable", None),
        (met("invalid_input", field="temperature"), 400, "invalid_request_error", "invalid_input", "temperature"),
        (met("unauthorized"), 500, "server_error", "run_failed", None),
        (met("not_found"), 500, "server_error", "run_failed", None),
    ],
)  # fmt: skip
def test_each_error_has_its_form(info: ErrorInfo, status: int, type: str, code: str, param: str | None) -> None:
    assert status_of(info) == status
    assert decode(error_body(info)) == {"error": {"message": info.message, "type": type, "param": param, "code": code}}


@pytest.mark.parametrize("retryable", [False, True])
def test_clients_are_told_whether_repeating_may_help(retryable: bool) -> None:
    shown = refuse(ErrorInfo("unavailable", "m", retryable))
    assert (shown.status, shown.content_type) == (503, "application/json")
    assert shown.headers == {"X-Should-Retry": "true" if retryable else "false"}

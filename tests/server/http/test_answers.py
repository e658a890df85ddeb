"""Answers: JSON that no cache keeps, and errors in their one form with their one status."""

from __future__ import annotations

import pytest

from loom.model.errors import CODES, LoomError, code_of
from loom.server.http.answers import empty, error_answer, json_answer
from loom.wire.json import decode


def test_json_is_neither_kept_nor_guessed_at() -> None:
    answer = json_answer({"n": 1}, 201, {"Location": "/runs/r"})
    assert (answer.status_code, answer.body) == (201, b'{"n":1}')
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["location"] == "/runs/r"
    assert answer.headers["content-length"] == "7"


def test_no_content_has_no_length() -> None:
    """RFC 9110, section 8.6: none with a 204."""
    answer = empty()
    assert (answer.status_code, answer.body) == (204, b"")
    assert "content-length" not in answer.headers
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("code", sorted(CODES))
def test_every_code_has_its_status_and_the_one_form(code: str) -> None:
    error = LoomError("why", code=code, details={"field": "n"})
    answer = error_answer(error)
    assert answer.status_code == code_of(code).http
    assert decode(bytes(answer.body)) == {
        "error": {"code": code, "message": "why", "retryable": error.retryable, "details": {"field": "n"}}
    }
    assert ("www-authenticate" in answer.headers) is (answer.status_code == 401)
    assert ("retry-after" in answer.headers) is (error.retryable and answer.status_code in (429, 503))


def test_retry_after_is_in_whole_seconds_and_never_early() -> None:
    """RFC 9110, section 10.2.3."""
    error = LoomError("busy", code="unavailable", retryable=True, details={"retry_after": 1.2})
    assert error_answer(error).headers["retry-after"] == "2"
    assert error_answer(LoomError("busy", code="unavailable", retryable=True)).headers["retry-after"] == "1"


def test_further_headers_are_kept() -> None:
    answer = error_answer(LoomError("no", code="method_not_allowed"), {"Allow": "GET"})
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET")

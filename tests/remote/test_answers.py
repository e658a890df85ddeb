"""Refusals: the server's own words by their code, everybody else's by their status."""

from __future__ import annotations

from typing import Any

import pytest

from loom.model.errors import (
    CODES,
    ErrorInfo,
    LimitExceeded,
    LoomError,
    RemoteProtocolError,
    Unauthorized,
    Unavailable,
    class_of,
)
from loom.remote.answers import decode_as, fault_of, is_final, refusal
from loom.wire.views import Accepted, error_body

PLACE = "http://h"


@pytest.mark.parametrize("code", CODES)
def test_every_error_comes_back_as_itself(code: str) -> None:
    info = ErrorInfo(code, "because", True, {"field": "x"})
    error = refusal(CODES[code].http, {}, error_body(info), PLACE)
    assert type(error) is class_of(code)
    assert error.info == info


FOREIGN: list[tuple[int, type[LoomError], bool]] = [
    (301, RemoteProtocolError, True),
    (308, RemoteProtocolError, True),
    (400, RemoteProtocolError, True),
    (401, Unauthorized, True),
    (403, Unauthorized, True),
    (404, RemoteProtocolError, True),
    (407, Unauthorized, True),
    (408, Unavailable, False),
    (413, LimitExceeded, True),
    (425, Unavailable, False),
    (429, LimitExceeded, False),
    (500, Unavailable, False),
    (501, RemoteProtocolError, True),
    (502, Unavailable, False),
    (503, Unavailable, False),
    (504, Unavailable, False),
    (520, Unavailable, False),
]


@pytest.mark.parametrize(("status", "kind", "final"), FOREIGN)
@pytest.mark.parametrize(
    "body", [b"", b"<html>Bad Gateway</html>", b'{"detail":"Not Found"}', b'{"error":"no"}', b"[" * 100_000, b"\xff"]
)
def test_what_others_answer_is_told_by_its_status(status: int, kind: type[LoomError], final: bool, body: bytes) -> None:
    error = refusal(status, {"content-type": "text/html"}, body, PLACE)
    assert type(error) is kind
    assert PLACE in error.message
    assert is_final(error) is final


def test_what_no_loom_server_says_names_what_came() -> None:
    error = refusal(404, {"content-type": "text/html; charset=utf-8"}, b"<html>", PLACE)
    assert (
        error.message
        == "http://h answered 404 with 'text/html; charset=utf-8', as no Loom server does: is the URL right?"
    )


def test_an_unknown_code_is_read_by_its_status() -> None:
    body = error_body(ErrorInfo("tea_time", "later"))
    assert isinstance(refusal(503, {}, body, PLACE), Unavailable)
    assert isinstance(refusal(418, {}, body, PLACE), RemoteProtocolError)


def test_the_pause_that_the_answer_asks_for() -> None:
    assert refusal(503, {"retry-after": "7"}, b"", PLACE).details["retry_after"] == 7.0
    said = error_body(ErrorInfo("limit_exceeded", "", True, {"retry_after": 0.5}))
    assert refusal(429, {"retry-after": "1"}, said, PLACE).details == {"retry_after": 0.5}


@pytest.mark.parametrize("pause", ['"abc"', "null", "true", "[]", "-1", "-1e9", "1" + "0" * 400])
def test_a_pause_that_is_none_is_not_told(pause: str) -> None:
    said = b'{"error":{"code":"unavailable","message":"","details":{"retry_after":%b,"x":1}}}' % pause.encode()
    assert refusal(503, {}, said, PLACE).details == {"x": 1}
    assert refusal(503, {"retry-after": "7"}, said, PLACE).details == {"x": 1, "retry_after": 7.0}
    assert fault_of(said).details == {"x": 1}


@pytest.mark.parametrize("code", CODES)
def test_what_is_final(code: str) -> None:
    """The server's own troubles pass, and what is said to pass; asking again changes nothing else."""
    row = CODES[code]
    error = class_of(code)("", code=code)
    assert is_final(error) is (row.http < 500 and not row.retryable)


def test_a_fault_is_an_error_body() -> None:
    assert isinstance(fault_of(error_body(ErrorInfo("unavailable", ""))), Unavailable)
    assert isinstance(fault_of(b"{}"), RemoteProtocolError)


@pytest.mark.parametrize("data", [b"", b"{}", b"null", b'{"id":1}', b"<html>", b"\xff", b"[" * 100_000])
def test_an_answer_that_is_none_names_the_server(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match=r"^http://h gave"):
        decode_as(data, Accepted, PLACE)


def test_an_answer() -> None:
    expected: Any = Accepted("x")
    assert decode_as(b'{"id":"x","more":1}', Accepted, PLACE) == expected

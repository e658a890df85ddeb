"""The table of operations: which handler a request finds, and that it is answered whatever happens."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import ASGIApp

from loom.model.errors import LogNotFound
from loom.server.http.answers import json_answer
from loom.server.http.requests import ClientGone
from loom.server.routes.operations import Answer, Endpoint, Operation, endpoints_of, fit

pytestmark = pytest.mark.anyio


def operation(method: str, path: str, outcome: Any = "fine") -> Operation:
    """Its handler answers with `outcome`, or raises it."""

    async def handle(request: Request) -> ASGIApp:
        if isinstance(outcome, BaseException):
            raise outcome
        return json_answer([outcome, request.method])

    return Operation(method, path, "name", "What it does.", handle, {200: Answer("So.")})


async def asked(endpoint: Endpoint, method: str = "GET") -> Response:
    async def receive() -> Any:
        raise AssertionError("no body is read")

    answer = await endpoint.answer({"type": "http", "method": method, "path": "/a", "headers": []}, receive)
    assert isinstance(answer, Response)
    return answer


def test_one_endpoint_a_path_finds_its_parameters() -> None:
    runs, one = endpoints_of([operation("GET", "/runs"), operation("GET", "/runs/{id}"), operation("POST", "/runs")])
    assert runs.match("/runs") == {}
    assert runs.match("/runs/") is None
    assert one.match("/runs/r-1") == {"id": "r-1"}
    assert one.match("/runs/r/events") is None


async def test_the_method_chooses_the_handler() -> None:
    (endpoint,) = endpoints_of([operation("GET", "/a", "read"), operation("POST", "/a", "written")])
    assert (await asked(endpoint)).body == b'["read","GET"]'
    assert (await asked(endpoint, "POST")).body == b'["written","POST"]'


async def test_where_get_is_head_is() -> None:
    (endpoint,) = endpoints_of([operation("GET", "/a", "read")])
    assert (await asked(endpoint, "HEAD")).body == b'["read","HEAD"]'


async def test_another_method_is_told_which_are_allowed() -> None:
    (endpoint,) = endpoints_of([operation("POST", "/a"), operation("GET", "/a")])
    answer = await asked(endpoint, "DELETE")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, POST")
    assert b"method_not_allowed" in answer.body


async def test_an_error_is_its_answer() -> None:
    (endpoint,) = endpoints_of([operation("GET", "/a", LogNotFound("no run 'r'"))])
    answer = await asked(endpoint)
    assert answer.status_code == 404
    assert b"no run 'r'" in answer.body


async def test_a_fault_is_logged_and_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    (endpoint,) = endpoints_of([operation("GET", "/a", ZeroDivisionError("the password is 12345"))])
    with caplog.at_level(logging.ERROR, "loom.server"):
        answer = await asked(endpoint)
    assert answer.status_code == 500
    assert b"12345" not in answer.body
    assert "12345" in caplog.text


@pytest.mark.parametrize("passes", [ClientGone, asyncio.CancelledError])
async def test_who_has_left_is_not_answered(passes: type[BaseException]) -> None:
    (endpoint,) = endpoints_of([operation("GET", "/a", passes())])
    with pytest.raises(passes):
        await asked(endpoint)


def test_an_answer_to_head_keeps_its_length_and_loses_its_body() -> None:
    answer = json_answer({"n": 1})
    length = answer.headers["content-length"]
    assert fit(answer, {"method": "GET"}) is answer
    assert answer.body == b'{"n":1}'
    fit(answer, {"method": "HEAD"})
    assert (answer.body, answer.headers["content-length"]) == (b"", length)


def test_a_stream_is_left_as_it_is() -> None:
    stream = StreamingResponse(iter([b"x"]))
    assert fit(stream.__call__, {"method": "HEAD"}) == stream.__call__


async def test_a_head_of_its_own_is_not_that_of_get() -> None:
    (endpoint,) = endpoints_of([operation("GET", "/a", "got"), operation("HEAD", "/a", "looked")])
    assert b"looked" in (await asked(endpoint, "HEAD")).body

"""Reading requests: what is understood, and what is refused by name. Bodies are tested on the real server."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import pytest
from starlette.requests import Request

from loom.model import limits
from loom.model.cursor import Cursor
from loom.model.errors import InvalidInput, LogNotFound, RemoteProtocolError, UsageError
from loom.server.http.requests import (
    CALLER,
    check_accepts_events,
    idempotent_id,
    query_cursor,
    query_duration,
    query_flag,
    query_int,
    query_name,
    resume_at,
    run_in_path,
)


def request(query: dict[str, str] | None = None, path: dict[str, str] | None = None, **headers: str) -> Request:
    """A GET with this query; of a header's name, _ is -."""
    raw = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
    scope: dict[str, Any] = {"type": "http", "method": "GET", "path": "/", "headers": raw, "path_params": path or {}}
    return Request({**scope, "query_string": urlencode(query or {}).encode()})


@pytest.mark.parametrize(
    "accept",
    [
        "", "*/*", "text/*", "text/event-stream", "TEXT/EVENT-STREAM; q=0.5", "application/json, text/event-stream",
        "*/*;q=0.0001",
    ],
)  # fmt: skip
def test_event_streams_are_accepted(accept: str) -> None:
    check_accepts_events(request(accept=accept))
    check_accepts_events(request())


@pytest.mark.parametrize("accept", ["application/json", "text/html", "text/event-stream;q=0", "*/*; q=0.000"])
def test_event_streams_are_refused(accept: str) -> None:
    with pytest.raises(RemoteProtocolError) as raised:
        check_accepts_events(request(accept=accept))
    assert raised.value.code == "not_acceptable"


def test_a_key_stands_for_one_id_in_either_way_of_writing_it() -> None:
    plain = idempotent_id(request(idempotency_key="a key"), None)
    assert plain == idempotent_id(request(idempotency_key='"a key"'), None)
    assert plain != idempotent_id(request(idempotency_key="another"), None)
    escaped = idempotent_id(request(idempotency_key=r'"say \"hi\""'), None)
    assert escaped == idempotent_id(request(idempotency_key='say "hi"'), None)
    assert idempotent_id(request(), "mine") == "mine"
    assert idempotent_id(request(), None) is None


def test_a_key_stands_for_another_id_with_another_caller() -> None:
    def id_for(caller: bytes) -> str | None:
        asked = request(idempotency_key="a key")
        asked.scope[CALLER] = caller
        return idempotent_id(asked, None)

    assert len({idempotent_id(request(idempotency_key="a key"), None), id_for(b"1" * 32), id_for(b"2" * 32)}) == 3
    assert id_for(b"") == idempotent_id(request(idempotency_key="a key"), None)
    assert idempotent_id(request(idempotency_key="a key\t "), None) == id_for(b"")


@pytest.mark.parametrize("key", ["", " ", '""', "ü", "a\tb", "x" * (limits.IDEMPOTENCY_KEY_LENGTH + 1)])
def test_a_key_that_is_none_is_refused(key: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        idempotent_id(request(idempotency_key=key), None)
    assert raised.value.details == {"field": "Idempotency-Key"}


def test_a_key_and_an_id_are_two_names() -> None:
    with pytest.raises(InvalidInput, match="one name for one run"):
        idempotent_id(request(idempotency_key="a"), "b")


def test_where_a_reader_goes_on() -> None:
    assert resume_at(request(), "r", None) is None
    assert resume_at(request(), "r", "") is None
    assert resume_at(request(), "r", "1-2") == Cursor(1, 2)
    assert resume_at(request(last_event_id="1-3"), "r", "1-2") == Cursor(1, 3)
    assert resume_at(request(last_event_id="r:1-3"), "r", None) == Cursor(1, 3)
    assert resume_at(request(last_event_id="r:"), "r", "1-2") is None
    for wrong in ("x", "other:1-3"):
        with pytest.raises(UsageError):
            resume_at(request(last_event_id=wrong), "r", None)


def test_blanks_around_a_header_are_no_part_of_it() -> None:
    """RFC 9110, section 5.5; not every server takes them off."""
    check_accepts_events(request(accept=" \ttext/event-stream \t"))
    assert resume_at(request(last_event_id="1-3 "), "r", None) == Cursor(1, 3)
    assert resume_at(request(last_event_id=" \t "), "r", "1-2") == Cursor(1, 2)


def test_a_run_in_the_path() -> None:
    assert run_in_path(request(path={"id": "r.1"})) == "r.1"
    with pytest.raises(LogNotFound):
        run_in_path(request(path={"id": "no such id"}))


def test_the_query_is_read() -> None:
    given = request({"n": "7", "name": "a-b", "flag": "", "wait": "50ms", "after": "1-2"})
    assert query_int(given, "n", 1, 10) == 7
    assert query_name(given, "name") == "a-b"
    assert query_flag(given, "flag", False) is True
    assert query_duration(given, "wait", 60.0) == 0.05
    assert query_duration(given, "wait", 0.01) == 0.01
    assert query_cursor(given) == Cursor(1, 2)


def test_what_is_left_out_of_the_query_is_its_default() -> None:
    nothing = request()
    assert query_int(nothing, "n", 3, 10) == 3
    assert query_name(nothing, "name") is None
    assert query_flag(nothing, "flag", True) is True
    assert query_duration(nothing, "wait", 60.0) == 0.0
    assert query_cursor(nothing) is None


@pytest.mark.parametrize("text", ["0", "11", "-1", "1.0", "x", "", "\u0663", "1" * 30])
def test_a_number_that_does_not_fit_is_named(text: str) -> None:
    with pytest.raises(UsageError) as raised:
        query_int(request({"n": text}), "n", 1, 10)
    assert raised.value.details == {"field": "n"}


def test_other_words_that_do_not_fit_are_named() -> None:
    with pytest.raises(UsageError) as raised:
        query_flag(request({"flag": "yes"}), "flag", False)
    assert raised.value.details == {"field": "flag"}
    with pytest.raises(UsageError) as raised:
        query_name(request({"name": "no name"}), "name")
    assert raised.value.details == {"field": "name"}
    with pytest.raises(UsageError) as raised:
        query_duration(request({"wait": "soon"}), "wait", 1.0)
    assert raised.value.details == {"field": "wait"}
    with pytest.raises(UsageError):
        query_cursor(request({"after": "soon"}))

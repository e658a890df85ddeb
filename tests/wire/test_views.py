"""What the HTTP interface shows of a run, and back."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from loom.model.errors import ErrorInfo
from loom.model.run import Head, Meta
from loom.wire.views import ErrorBody, RunView, StartBody, head_of, view_of

META = Meta(
    run="r",
    actor="a",
    input=msgspec.Raw(b'{"n":1}'),
    queue="q",
    key="k",
    created=1.5,
    owner_lease=2.0,
    timeout=3.0,
    idle_timeout=4.0,
    ahead=5,
)

HEADS = [
    Head(meta=Meta(run="r", actor="a")),
    Head(meta=META, epochs=((1_00000001, 1),), tail=3, state="running", started=2.0),
    Head(
        meta=META,
        epochs=((1_00000001, 1), (2_00000002, 4)),
        first=3,
        tail=9,
        ended=True,
        state="completed",
        result=msgspec.Raw(b"[1,2]"),
        started=2.0,
        ended_at=3.0,
    ),
    Head(meta=META, epochs=((7, 1),), tail=1, ended=True, state="cancelled", error=ErrorInfo("cancelled", "x")),
]


@pytest.mark.parametrize("head", HEADS)
def test_a_head_outlasts_its_view(head: Head) -> None:
    line = msgspec.json.encode(view_of(head))
    again = head_of(msgspec.json.decode(line, type=RunView))
    assert again == head
    assert (again.earliest, again.latest, again.attempt) == (head.earliest, head.latest, head.attempt)


def test_a_view_shows_cursors_as_text() -> None:
    view = view_of(HEADS[2])
    assert (view.earliest, view.latest, view.attempt, view.chunks) == ("100000001-2", "200000002-9", 2, 9)
    assert (view_of(HEADS[0]).earliest, view_of(HEADS[0]).latest) == (None, None)


def test_lists_show_neither_input_nor_result() -> None:
    view = view_of(HEADS[2], full=False)
    assert not {"input", "result"} & set(msgspec.json.decode(msgspec.json.encode(view)))
    assert bytes(head_of(view).meta.input) == b"null"


def test_an_error_body() -> None:
    assert msgspec.json.encode(ErrorBody(ErrorInfo("ended", "x"))) == b'{"error":{"code":"ended","message":"x"}}'


@pytest.mark.parametrize(
    "body",
    [{}, {"actor": 1}, {"actor": "a", "unknown": 1}, {"actor": "a", "timeout": "5"}, {"actor": "a", "ahead": 1.5}],
)
def test_a_start_body_refuses_what_it_does_not_know(body: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(msgspec.json.encode(body), type=StartBody)


def test_a_start_body_keeps_its_input_as_it_is() -> None:
    body = msgspec.json.decode(b'{"actor": "a", "input": {"b": 1,  "a": 2}}', type=StartBody)
    assert bytes(body.input) == b'{"b": 1,  "a": 2}'

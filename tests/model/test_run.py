"""Ids, metas, heads and states."""

from __future__ import annotations

import uuid
from typing import Any, get_args

import msgspec
import pytest

from loom.model import limits
from loom.model.cursor import Cursor
from loom.model.errors import ErrorInfo, InvalidInput
from loom.model.names import check_id
from loom.model.run import ALL_RUNS, ActorInfo, Claim, Head, Meta, RunFilter, RunState, inbox_of, run_of, state_of

META = Meta(run="r", actor="a")


@pytest.mark.parametrize("text", ["a", "0", "chat-agent", "A.b_c:d@e~f-0", "x" * limits.ID_LENGTH])
def test_names(text: str) -> None:
    assert check_id(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x" * (limits.ID_LENGTH + 1),
        "-a",
        ".a",
        "a b",
        "a/b",
        "a/in",
        "a\n",
        "a\x00",
        "ä",
        "a%",
        "..",
        "a?b",
        "a#b",
        "a{b}",
        "x" * 10**6,
    ],
)
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="actor: ") as caught:
        check_id(text, "actor")
    assert caught.value.details == {"field": "actor"}
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("value", [7, b"x", None, ["x"], uuid.UUID(int=7)])
def test_what_is_no_text_is_refused_as_well(value: Any) -> None:
    with pytest.raises(InvalidInput, match="key: ") as caught:
        check_id(value, "key")
    assert caught.value.details == {"field": "key"}


def test_no_run_is_called_like_an_inbox() -> None:
    assert run_of(inbox_of("r")) == run_of("r") == "r"
    with pytest.raises(InvalidInput):
        check_id(inbox_of("r"))


def test_the_same_request() -> None:
    one = Meta(run="r", actor="a", key="k", input=msgspec.Raw(b"1"), created=1.0)
    assert one.same_request(Meta(run="other", actor="a", key="k", input=msgspec.Raw(b"1"), created=2.0, queue="q"))
    others: list[dict[str, Any]] = [{"actor": "b"}, {"key": "l"}, {"key": None}, {"input": msgspec.Raw(b"2")}]
    for other in others:
        assert not one.same_request(msgspec.structs.replace(one, **other))


def test_a_meta_outlasts_its_json() -> None:
    meta = Meta(
        run="r", actor="a", input=msgspec.Raw(b'{"a":1}'), queue="q", key="k", created=1.5, owner_lease=2.0, ahead=3
    )
    again = msgspec.json.decode(msgspec.json.encode(meta), type=Meta)
    assert again == meta
    assert again.same_request(meta)


def test_an_empty_head() -> None:
    head = Head(meta=META)
    assert (head.attempt, head.earliest, head.latest, head.state) == (0, None, None, "queued")


def test_a_head_names_its_cursors() -> None:
    head = Head(meta=META, epochs=((1_00000007, 1), (3_00000001, 4)), first=3, tail=6)
    assert head.attempt == 3
    assert head.earliest == Cursor(1_00000007, 2)
    assert head.latest == Cursor(3_00000001, 6)
    assert head.cursor_at(3) == Cursor(1_00000007, 3)
    assert head.cursor_at(4) == Cursor(3_00000001, 4)
    assert head.cursor_at(0) is None


@pytest.mark.parametrize(
    ("attempted", "code", "ended", "state"),
    [
        (False, None, False, "queued"),
        (True, None, False, "running"),
        (True, None, True, "completed"),
        (True, "run_failed", True, "failed"),
        (True, "my_own", True, "failed"),
        (True, "cancelled", True, "cancelled"),
        (False, "cancelled", True, "cancelled"),
        (True, "run_lost", True, "lost"),
    ],
)
def test_states(attempted: bool, code: str | None, ended: bool, state: RunState) -> None:
    error = ErrorInfo(code, "") if code else None
    assert state_of(attempted=attempted, error=error, ended=ended) == state
    assert state in get_args(RunState)


def test_a_claim_names_its_run() -> None:
    assert Claim(meta=META, worker="w", number=1).run == "r"


def test_what_is_told_of_an_actor() -> None:
    assert msgspec.json.encode(ActorInfo(name="a")) == b'{"name":"a"}'


def test_what_a_filter_asks_for() -> None:
    assert ALL_RUNS.terms == []
    assert RunFilter(state="running", actor="a").columns == {"state": "running", "actor": "a"}
    asked = RunFilter(actor="a", labels={"user": "42", "team": "red"}, parent="p", root="r")
    assert asked.terms == [
        ("actor", "a"),
        ("parent", "p"),
        ("root", "r"),
        ("label", "user", "42"),
        ("label", "team", "red"),
    ]


def test_the_filter_of_a_run_has_all_that_it_matches() -> None:
    meta = Meta(run="c", actor="a", labels={"user": "42"}, parent="p", root="r")
    assert RunFilter.of(meta) == RunFilter(actor="a", labels={"user": "42"}, parent="p", root="r")
    assert RunFilter.of(meta, "queued").terms[0] == ("state", "queued")


@pytest.mark.parametrize(
    ("filter", "matches"),
    [
        (RunFilter(), True),
        (RunFilter(state="queued", actor="a", labels={"user": "42"}, parent="p", root="r"), True),
        (RunFilter(labels={"user": "42", "team": "x"}), True),
        (RunFilter(state="running"), False),
        (RunFilter(actor="a", labels={"user": "7"}), False),
        (RunFilter(root="p"), False),
    ],
)
def test_what_a_filter_matches(filter: RunFilter, matches: bool) -> None:
    labels = {"user": "42", "team": "x"}
    assert filter.matches(Head(meta=Meta(run="run", actor="a", labels=labels, parent="p", root="r"))) is matches

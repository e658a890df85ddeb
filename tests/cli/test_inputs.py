"""What is typed becomes the input that is meant."""

from __future__ import annotations

import io
from typing import Any

import msgspec
import pydantic
import pytest

import loom
from loom.cli.inputs import check_once, read_input, read_piped
from loom.model import limits
from loom.model.run import ActorInfo


class Question(msgspec.Struct):
    text: str


class Form(pydantic.BaseModel):
    text: str


app = loom.App()


@app.actor
async def says(text: str, ctx: loom.Context) -> None: ...


@app.actor
async def counts(n: int) -> None: ...


@app.actor
async def reads(source: list[str] | str) -> None: ...


@app.actor
async def asks(question: Question) -> None: ...


@app.actor
async def fills(form: Form) -> None: ...


@app.actor
async def adds(a: int, b: str = "") -> None: ...


def info(name: str) -> ActorInfo:
    return app.registry.get(name).info()


@pytest.mark.parametrize(
    ("actor", "text", "input"),
    [
        ("says", "5", {"text": "5"}),
        ("says", '{"text": "x"}', {"text": '{"text": "x"}'}),
        ("counts", "5", 5),
        ("counts", '{"n": 5}', {"n": 5}),
        ("counts", "five", "five"),
        ("reads", '["a.txt"]', ["a.txt"]),
        ("reads", "some text", "some text"),
        ("asks", '{"text": "x"}', {"text": "x"}),
        ("fills", '{"text": "x"}', {"text": "x"}),
        ("adds", '{"a": 1}', {"a": 1}),
        ("says", None, {}),
        ("counts", "\udcff", "\udcff"),
    ],
)
def test_an_argument_is_json_if_it_parses_and_text_where_only_text_is_taken(actor: str, text: Any, input: Any) -> None:
    assert read_input(info(actor), text, None, None) == input


@pytest.mark.parametrize(
    ("actor", "piped", "input"),
    [
        ("says", "5\n", {"text": "5\n"}),
        ("reads", '["a.txt"]', {"source": '["a.txt"]'}),
        ("counts", " 5\n", 5),
        ("adds", '{"a": 1}\n', {"a": 1}),
    ],
)
def test_standard_input_is_text_wherever_text_is_taken(actor: str, piped: str, input: Any) -> None:
    assert read_input(info(actor), None, None, piped) == input


def test_of_an_unknown_actor_json_is_guessed() -> None:
    assert read_input(None, "5", None, None) == 5
    assert read_input(None, "five", None, None) == "five"


def test_the_option_is_json_whatever_is_taken() -> None:
    assert read_input(info("says"), None, '{"text": "x"}', None) == {"text": "x"}
    with pytest.raises(loom.InvalidInput, match="--input: not JSON"):
        read_input(info("says"), None, "text", None)
    with pytest.raises(loom.InvalidInput, match=r"--input: a lone surrogate in JSON: \\ud800 at byte 10"):
        read_input(info("says"), None, r'{"text": "\ud800"}', None)


@pytest.mark.parametrize("given", [("x", "1", False), ("x", None, True), (None, "1", True)])
def test_two_inputs_are_refused(given: tuple[str | None, str | None, bool]) -> None:
    with pytest.raises(loom.UsageError, match="once"):
        check_once(*given)


def test_standard_input_is_bounded_and_utf_8() -> None:
    assert read_piped(io.BytesIO("müde".encode())) == "müde"
    with pytest.raises(loom.InvalidInput, match="standard input"):
        read_piped(io.BytesIO(b"\xff"))
    with pytest.raises(loom.LimitExceeded):
        read_piped(io.BytesIO(b"x" * (limits.INPUT_BYTES + 1)))


def test_what_looks_like_json_is_not_taken_for_text() -> None:
    with pytest.raises(loom.InvalidInput, match="looks like JSON, but: "):
        read_input(info("counts"), '{"n": 3', None, None)
    assert read_input(info("says"), '{"n": 3', None, None) == {"text": '{"n": 3'}

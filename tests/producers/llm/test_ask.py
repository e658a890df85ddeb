"""The question as a value."""

from __future__ import annotations

from typing import Any

import pytest

from loom.model.errors import InvalidInput, UsageError
from loom.model.parts import ChatMessage
from loom.producers.llm import Ask

USER = {"role": "user", "content": "hi"}


def test_a_prompt_or_messages() -> None:
    assert Ask.make("hi", None).messages == [USER]
    assert Ask.make(None, [ChatMessage("user", "hi")]).messages == [USER]
    for both in [(None, None), ("hi", [USER])]:
        with pytest.raises(UsageError):
            Ask.make(*both)


def test_a_message_keeps_what_only_its_provider_knows() -> None:
    given: dict[str, Any] = {**USER, "cache_control": {"type": "ephemeral"}}
    assert Ask.make(None, [given]).messages == [given]


def test_a_message_of_a_tool() -> None:
    message = ChatMessage("tool", "12", tool_call_id="call_a")
    assert Ask.make(None, [message]).messages == [{"role": "tool", "content": "12", "tool_call_id": "call_a"}]


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": float("inf")}, "temperature"),
    ],
)
def test_what_makes_no_sense_is_named(options: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Ask.make("hi", None, **options)
    assert caught.value.details == {"field": field}


@pytest.mark.parametrize(("messages", "field"), [([], "messages"), ([USER, {"content": "x"}], "messages[1].role")])
def test_messages_that_make_no_sense_are_named(messages: list[Any], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Ask.make(None, messages)
    assert caught.value.details == {"field": field}


def test_what_was_asked_last_and_what_was_begun() -> None:
    parts = {
        "role": "user",
        "content": [{"type": "text", "text": "a"}, {"type": "image_url"}, {"type": "text", "text": "b"}],
    }
    begun = {"role": "assistant", "content": "Once"}
    odd = {"role": "user", "content": [{"type": "text", "text": None}, {"type": "text"}, {"type": "text", "text": "c"}]}
    assert Ask.make(None, [USER, parts]).prompt == "ab"
    assert Ask.make(None, [USER, odd]).prompt == "c"
    assert Ask.make(None, [USER, begun]).prompt == "hi"
    assert Ask.make(None, [USER, begun]).begun == "Once"
    assert Ask.make(None, [begun, USER]).begun == ""
    assert Ask.make(None, [begun]).prompt == ""

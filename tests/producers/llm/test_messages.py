"""Questions in Anthropic's wire, and answers that no server should send. Without a connection."""

from __future__ import annotations

import json
from typing import Any

import pytest

from loom.model import limits
from loom.model.errors import InvalidInput, LimitExceeded, RemoteProtocolError, Unavailable
from loom.model.parts import ChatMessage, FinishReasonPart, Part, TextPart
from loom.producers.llm import Ask
from loom.producers.llm.messages import MessageAnswer, message_body

from .anthropic_recordings import block, delta, start, stopped


def body(*messages: Any, **options: Any) -> dict[str, Any]:
    given: dict[str, Any] = json.loads(message_body(Ask.make(None, messages, **options), "m", 100))
    return given


def feed(answer: MessageAnswer, *events: Any) -> list[Part]:
    return [part for event in events for part in answer.feed(json.dumps(event).encode())]


USER = {"role": "user", "content": "hi"}


def test_the_system_prompt_stands_apart() -> None:
    sent = body(ChatMessage("system", "Be kind."), {"role": "developer", "content": "And short."}, USER)
    assert sent["system"] == "Be kind.\n\nAnd short."
    assert sent["messages"] == [USER]
    assert "system" not in body(USER)
    blocks = [{"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral"}}]
    sent = body({"role": "system", "content": blocks}, {"role": "system", "content": "x"}, USER)
    assert sent["system"] == [*blocks, {"type": "text", "text": "x"}]


def test_calls_and_results_of_tools() -> None:
    call = {"id": "a", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    bare = {"id": "b", "type": "function", "function": {"name": "now", "arguments": ""}}
    thought = {"type": "thinking", "thinking": "hm", "signature": "s"}
    sent = body(
        USER,
        {"role": "assistant", "content": "Let me see.", "tool_calls": [call, bare], "thinking_blocks": [thought]},
        {"role": "tool", "tool_call_id": "a", "content": "1"},
        {"role": "tool", "tool_call_id": "b", "content": [{"type": "text", "text": "x"}], "is_error": True},
        USER,
    )
    assert sent["messages"] == [
        USER,
        {
            "role": "assistant",
            "content": [
                thought,
                {"type": "text", "text": "Let me see."},
                {"type": "tool_use", "id": "a", "name": "add", "input": {"a": 1}},
                {"type": "tool_use", "id": "b", "name": "now", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "a", "content": "1"},
                {
                    "type": "tool_result",
                    "tool_use_id": "b",
                    "content": [{"type": "text", "text": "x"}],
                    "is_error": True,
                },
                {"type": "text", "text": "hi"},
            ],
        },
    ]


def test_images() -> None:
    def image(url: Any) -> dict[str, Any]:
        return {"role": "user", "content": [{"type": "image_url", "image_url": url}]}

    assert body(image({"url": "https://x/y.png"}))["messages"][0]["content"] == [
        {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}}
    ]
    source = {"type": "base64", "media_type": "image/png", "data": "aGk="}
    assert body(image("data:image/png;base64,aGk="))["messages"][0]["content"] == [{"type": "image", "source": source}]


def test_what_only_the_provider_knows_is_passed_on() -> None:
    document = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "x"}}
    assert body({"role": "user", "content": [document]})["messages"][0]["content"] == [document]


def test_messages_that_say_nothing_are_left_out() -> None:
    nothings: list[Any] = ["", None, []]
    for nothing in nothings:
        assert body(USER, {"role": "assistant", "content": nothing})["messages"] == [USER]


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ({"role": "critic", "content": "x"}, "messages[1].role"),
        ({"role": "assistant", "tool_calls": [{"id": "a"}]}, "messages[1].tool_calls[0]"),
        (
            {"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": "x", "arguments": "{"}}]},
            "messages[1].tool_calls[0]",
        ),
        (
            {"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": "x", "arguments": "\ud800"}}]},
            "messages[1].tool_calls[0]",
        ),
        ({"role": "assistant", "tool_calls": 5}, "messages[1].tool_calls"),
        ({"role": "assistant", "thinking_blocks": "deep"}, "messages[1].thinking_blocks"),
        ({"role": "user", "content": 5}, "messages[1].content"),
        ({"role": "user", "content": ["x"]}, "messages[1].content"),
        ({"role": "system", "content": {"type": "text", "text": "x"}}, "messages[1].content"),
        ({"role": "tool", "content": 5}, "messages[1].content"),
        ({"role": "user", "content": "half \ud800"}, "messages"),
    ],
)
def test_what_cannot_be_said_is_named(message: Any, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        body(USER, message)
    assert caught.value.details == {"field": field}


def test_an_answer_that_broke_off_has_no_end() -> None:
    answer = MessageAnswer()
    assert feed(answer, start(input_tokens=1), delta(0, type="text_delta", text="x"))[0] == TextPart("x")
    with pytest.raises(Unavailable, match="broke off"):
        answer.end()


def test_a_call_that_was_cut_short_is_left_out() -> None:
    answer = MessageAnswer()
    feed(answer, block(0, type="tool_use", id="a", name="add", input={}))
    feed(answer, delta(0, type="input_json_delta", partial_json='{"a"'), stopped("max_tokens"))
    assert answer.end() == [FinishReasonPart("length")]


def test_a_reason_that_is_not_known_is_passed_on() -> None:
    answer = MessageAnswer()
    feed(answer, stopped("pause_turn"))
    assert answer.end() == [FinishReasonPart("pause_turn")]


@pytest.mark.parametrize("data", [b"{", b"[]", b'{"type": 3}', b"\xff", b"[" * 10_000])
def test_what_is_no_event_is_refused(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        MessageAnswer().feed(data)


def test_arguments_without_end_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "AI_ARGUMENT_CHARACTERS", 10)
    answer = MessageAnswer()
    feed(answer, block(0, type="tool_use", id="a", name="add"))
    with pytest.raises(LimitExceeded):
        feed(answer, delta(0, type="input_json_delta", partial_json="x" * 11))

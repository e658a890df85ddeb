"""A chat request: what is refused, by which name, and what reaches an actor's parameters."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

import loom
from loom.engine.declare.signature import make_producer
from loom.model.errors import InvalidInput, RemoteProtocolError
from loom.wire.dialects.openai.request import ChatBody, ProviderChatBody, read_request
from loom.wire.json import encode

HI: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def given(target: Any, name: str = "actor", **fields: Any) -> dict[str, Any]:
    """What the actor is called with."""
    producer = make_producer(name, target)
    asked = read_request(encode({**HI, **fields}), ChatBody).input_for(name, producer.info().input_schema)
    return producer.inputs.decode(encode(asked))


async def plain(prompt: str) -> None: ...
async def bare(prompt) -> None: ...  # type: ignore[no-untyped-def]
async def optional(prompt: str | None = None, ctx: loom.Context | None = None) -> None: ...
async def tuned(prompt: str, temperature: float = 1.0, model: str = "", user: str = "") -> None: ...
async def talk(messages: list[loom.ChatMessage], model: str | None = None) -> None: ...
async def spell(text: str, voice: str = "low") -> None: ...


def test_a_sole_text_is_the_users_last() -> None:
    messages = [
        {"role": "user", "content": "first"},
        {
            "role": "user",
            "content": [{"type": "text", "text": "la"}, {"type": "image_url"}, {"type": "text", "text": "st"}],
        },
        {"role": "assistant", "content": "no"},
    ]
    assert given(plain, messages=messages) == {"prompt": "last"}
    assert given(bare, messages=messages) == {"prompt": "last"}
    assert given(optional, messages=messages) == {"prompt": "last"}


def test_of_several_texts_it_is_the_one_that_must_be_given() -> None:
    assert given(spell) == {"text": "hi"}
    assert given(spell, voice="high") == {"text": "hi", "voice": "high"}


def test_other_fields_go_to_the_parameters_of_their_names() -> None:
    assert given(tuned) == {"prompt": "hi", "model": "m"}
    assert given(tuned, temperature=0.5, user="u", top_k=3) == {
        "prompt": "hi", "model": "m", "temperature": 0.5, "user": "u",
    }  # fmt: skip


def test_null_is_as_good_as_left_out() -> None:
    assert given(tuned, temperature=None, user=None) == {"prompt": "hi", "model": "m"}


def test_messages_are_chat_messages() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [
        {"role": "developer", "content": "be kind", "name": None},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "4"},
    ]
    assert given(talk, messages=messages)["messages"] == [
        loom.ChatMessage("developer", "be kind"),
        loom.ChatMessage("assistant", None, tool_calls=[call]),
        loom.ChatMessage("tool", "4", tool_call_id="c"),
    ]


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_both_names_of_the_bound_on_tokens_are_one(name: str) -> None:
    async def bounded(prompt: str, max_tokens: int = 0, max_completion_tokens: int = 0) -> None: ...

    fields: dict[str, Any] = {name: 7}
    assert given(bounded, **fields) == {"prompt": "hi", "max_tokens": 7, "max_completion_tokens": 7}


def test_tools_are_tool_specs() -> None:
    async def able(prompt: str, tools: list[loom.ToolSpec], tool_choice: Any = None) -> None: ...

    tool = {"name": "now", "description": None, "parameters": {"type": "object"}, "strict": True}
    assert given(able, tools=[{"type": "function", "function": tool}], tool_choice="auto") == {
        "prompt": "hi",
        "tools": [loom.ToolSpec("now", parameters={"type": "object"})],
        "tool_choice": "auto",
    }


def test_a_model_that_is_the_actor_itself_is_not_told() -> None:
    assert "model" not in given(talk, name="m")
    assert given(talk, name="other")["model"] == "m"


def test_a_sole_model_parameter_takes_the_fields() -> None:
    class Chat(msgspec.Struct):
        messages: list[loom.ChatMessage]
        temperature: float = 1.0

    async def chat(chat: Chat) -> None: ...

    chat.__annotations__ = {"chat": Chat}
    assert given(chat, temperature=0.0) == {"chat": Chat([loom.ChatMessage("user", "hi")], 0.0)}


async def counts(n: int) -> None: ...
async def nothing() -> None: ...
async def two(a: str, b: str) -> None: ...


@pytest.mark.parametrize("target", [counts, nothing, two])
def test_an_actor_that_takes_no_chat_is_refused(target: Any) -> None:
    with pytest.raises(InvalidInput, match="cannot be asked in messages") as caught:
        given(target)
    assert caught.value.details["field"] == "messages"


def test_without_a_word_of_the_user_there_is_no_prompt() -> None:
    with pytest.raises(InvalidInput, match="none is the user's"):
        given(plain, messages=[{"role": "system", "content": "x"}])


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"model": None}, "model"),
        ({"model": ""}, "model"),
        ({"model": "m" * 513}, "model"),
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"content": "hi"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages[0].content"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
        ({"n": 2}, "n"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": -1}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0].function"),
        ({"tool_choice": 1}, "tool_choice"),
        ({"stop": 1}, "stop"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(change: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read_request(encode({**HI, **change}), ChatBody)
    assert caught.value.details["field"] == field


def test_a_missing_field_is_named() -> None:
    with pytest.raises(InvalidInput, match="missing required field `model`") as caught:
        read_request(encode({"messages": HI["messages"]}), ChatBody)
    assert caught.value.details["field"] == "model"
    assert read_request(encode({"messages": HI["messages"]}), ProviderChatBody).body.model is None


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'{"messages":' + b"[" * 300 + b"]" * 300 + b"}"])
def test_what_is_no_json_is_refused(body: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        read_request(body, ChatBody)

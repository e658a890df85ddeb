"""Anthropic's own client as the judge: it reads the recordings as we do, and its types hold what we send."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import pytest
from anthropic.types.message_create_params import MessageCreateParamsStreaming
from pydantic import TypeAdapter

from loom.model.parts import Part, ReasoningPart, TextPart, ToolCallPart, ToolSpec, UsagePart
from loom.producers.llm import Ask
from loom.producers.llm.messages import message_body

from .anthropic_recordings import TEXT, THINKING, TOOLS
from .provider import Provider, chunked
from .recordings import Recording

SCHEMA = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"], "additionalProperties": False}
CALL = {"id": "a", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
THOUGHTS = [
    {"type": "thinking", "thinking": "hm", "signature": "s"},
    {"type": "redacted_thinking", "data": "x"},
]
IMAGES = [
    {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}},
    {"type": "image_url", "image_url": "https://x/y.png"},
]


def told(part: Part) -> Any:
    match part:
        case TextPart():
            return ("text", part.text)
        case ReasoningPart():
            return ("redacted", part.signature) if part.redacted else ("thought", part.text or part.signature)
        case ToolCallPart():
            return ("call", part.id, part.name, json.loads(part.arguments))
    return None


def told_by(block: Any) -> list[Any]:
    match block.type:
        case "text":
            return [("text", block.text)]
        case "thinking":
            return [("thought", block.thinking), ("thought", block.signature)]
        case "redacted_thinking":
            return [("redacted", block.data)]
        case "tool_use":
            return [("call", block.id, block.name, block.input)]
    return []


def joined(said: list[Any]) -> list[Any]:
    """Pieces of one thing as one."""
    whole: list[Any] = []
    for kind, *rest in said:
        if whole and kind in ("text", "thought") and whole[-1][0] == kind:
            whole[-1] = (kind, whole[-1][1] + rest[0])
        else:
            whole.append((kind, *rest))
    return whole


@pytest.mark.anyio
@pytest.mark.parametrize("recording", [TEXT, TOOLS, THINKING], ids=lambda r: r.name)
async def test_its_client_reads_the_recordings_as_we_do(recording: Recording) -> None:
    async with Provider() as provider:
        provider.play(chunked(recording.body))
        async with client_of(provider) as client:
            asked = client.messages.stream(max_tokens=5, model="m", messages=[{"role": "user", "content": "hi"}])
            async with asked as stream:
                message = await stream.get_final_message()
    ours = [said for part in recording.parts if (said := told(part)) is not None]
    assert joined(ours) == joined([said for block in message.content for said in told_by(block)])
    usage = recording.parts[-1]
    assert isinstance(usage, UsagePart)
    assert (usage.input_tokens, usage.output_tokens) == (message.usage.input_tokens, message.usage.output_tokens)


def client_of(provider: Provider) -> Any:
    return anthropic.AsyncAnthropic(api_key="k", base_url=provider.url.removesuffix("/v1"), max_retries=0)


@pytest.mark.parametrize(
    "body",
    [
        message_body(Ask.make("hi", None, continue_from="Once "), "m", 10),
        message_body(Ask.make("hi", None, schema=SCHEMA), "m", 10),
        message_body(Ask.make("hi", None, schema=SCHEMA), "m", 10, mode="tool"),
        message_body(
            Ask.make(
                None,
                [
                    {"role": "system", "content": "Be kind."},
                    {"role": "user", "content": [{"type": "text", "text": "a"}, *IMAGES]},
                    {"role": "assistant", "content": "hm", "tool_calls": [CALL], "thinking_blocks": THOUGHTS},
                    {"role": "tool", "tool_call_id": "a", "content": "1", "is_error": True},
                    {"role": "user", "content": "go on"},
                ],
                temperature=0.5,
                tools=[ToolSpec("add", "adds", SCHEMA)],
            ),
            "m",
            10,
        ),
    ],
    ids=["prefix", "format", "forced tool", "conversation"],
)
def test_its_types_hold_what_we_send(body: bytes) -> None:
    TypeAdapter(MessageCreateParamsStreaming).validate_python(json.loads(body))

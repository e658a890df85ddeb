"""Answers as Anthropic's Messages sends them, shortened, with the parts that they mean."""

from __future__ import annotations

import json
from typing import Any

from loom.model.parts import FinishReasonPart, ReasoningPart, TextPart, ToolCallPart, UsagePart

from .recordings import Recording


def lines(*events: dict[str, Any]) -> bytes:
    return b"".join(
        f"event: {event['type']}\ndata: {json.dumps(event, ensure_ascii=False)}\n\n".encode() for event in events
    )


def start(**usage: int) -> dict[str, Any]:
    message = {"id": "msg_1", "type": "message", "role": "assistant", "content": [], "model": "claude-opus-5-5"}
    return {"type": "message_start", "message": {**message, "stop_reason": None, "stop_sequence": None, "usage": usage}}


def block(index: int, **content: Any) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": content}


def delta(index: int, **content: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": content}


def close(index: int) -> dict[str, Any]:
    return {"type": "content_block_stop", "index": index}


def stopped(reason: str, **usage: int) -> dict[str, Any]:
    return {"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": None}, "usage": usage}


STOP = {"type": "message_stop"}
PING = {"type": "ping"}


def text(*pieces: str, reason: str = "end_turn") -> bytes:
    """A whole answer of text."""
    deltas = [delta(0, type="text_delta", text=piece) for piece in pieces]
    return lines(
        start(input_tokens=9, output_tokens=1),
        block(0, type="text", text=""),
        *deltas,
        close(0),
        stopped(reason, output_tokens=12),
        STOP,
    )


TEXT = Recording(
    "text",
    body=lines(
        start(input_tokens=9, cache_read_input_tokens=2, output_tokens=1),
        block(0, type="text", text=""),
        PING,
        delta(0, type="text_delta", text="Grüße"),
        {"type": "something_new", "index": 3},
        delta(0, type="text_delta", text=" vom 🌊"),
        delta(0, type="citations_delta", citation={}),
        close(0),
        stopped("end_turn", output_tokens=12),
        STOP,
    ),
    parts=[
        TextPart("Grüße"),
        UsagePart(9, 1, {"cache_read_input_tokens": 2}),
        TextPart(" vom 🌊"),
        FinishReasonPart("stop"),
        UsagePart(9, 12, {"cache_read_input_tokens": 2}),
    ],
    finished_by=lines(stopped("end_turn", output_tokens=12)),
)

TOOLS = Recording(
    "tools",
    body=lines(
        start(input_tokens=472, output_tokens=2),
        block(0, type="text", text=""),
        delta(0, type="text_delta", text="Let me look."),
        close(0),
        block(1, type="tool_use", id="toolu_1", name="weather", input={}),
        delta(1, type="input_json_delta", partial_json=""),
        delta(1, type="input_json_delta", partial_json='{"city": "Os'),
        delta(1, type="input_json_delta", partial_json='lo"}'),
        close(1),
        block(2, type="tool_use", id="toolu_2", name="now", input={}),
        close(2),
        stopped("tool_use", output_tokens=89),
        STOP,
    ),
    parts=[
        TextPart("Let me look."),
        UsagePart(472, 2),
        ToolCallPart("toolu_1", "weather", '{"city": "Oslo"}', 0),
        ToolCallPart("toolu_2", "now", "{}", 1),
        FinishReasonPart("tool_calls"),
        UsagePart(472, 89),
    ],
    finished_by=lines(stopped("tool_use", output_tokens=89)),
)

THINKING = Recording(
    "thinking",
    body=lines(
        start(input_tokens=20, output_tokens=1),
        block(0, type="thinking", thinking="", signature=""),
        delta(0, type="thinking_delta", thinking="Two and"),
        delta(0, type="thinking_delta", thinking=" two."),
        delta(0, type="signature_delta", signature="EqQBCg=="),
        close(0),
        block(1, type="redacted_thinking", data="EmwKAh=="),
        close(1),
        block(2, type="text", text=""),
        delta(2, type="text_delta", text="4"),
        close(2),
        stopped("max_tokens", output_tokens=30),
        STOP,
    ),
    parts=[
        ReasoningPart("Two and"),
        UsagePart(20, 1),
        ReasoningPart(" two."),
        ReasoningPart("", "EqQBCg=="),
        ReasoningPart("", "EmwKAh==", redacted=True),
        TextPart("4"),
        FinishReasonPart("length"),
        UsagePart(20, 30),
    ],
    finished_by=lines(stopped("max_tokens", output_tokens=30)),
)

NOT_STREAMED = Recording(
    "not-streamed",
    body=json.dumps(
        {
            "type": "message",
            "role": "assistant",
            "content": [
                {"type": "text", "text": "Hi"},
                {"type": "tool_use", "id": "t", "name": "now", "input": {"z": 1}},
            ],
            "stop_reason": "tool_use",
            "usage": {"input_tokens": 3, "output_tokens": 4},
        }
    ).encode(),
    parts=[TextPart("Hi"), ToolCallPart("t", "now", '{"z":1}'), FinishReasonPart("tool_calls"), UsagePart(3, 4)],
    finished_by=b'"output_tokens": 4}}',
    content_type="application/json",
)

RECORDINGS = [TEXT, TOOLS, THINKING, NOT_STREAMED]

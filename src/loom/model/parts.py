"""The typed parts of a language model's answer, and what it is asked with. Provider-neutral."""

from __future__ import annotations

from typing import Any

import msgspec

__all__ = [
    "ChatMessage",
    "FinishReasonPart",
    "Part",
    "ReasoningPart",
    "TextPart",
    "ToolCallPart",
    "ToolSpec",
    "UsagePart",
]


class ChatMessage(msgspec.Struct, frozen=True, omit_defaults=True):
    """One message of a conversation, in the OpenAI-compatible shape (roles system, user, assistant, tool)."""

    role: str
    content: Any = None
    name: str | None = None
    tool_calls: list[dict[str, Any]] = []
    tool_call_id: str | None = None


class ToolSpec(msgspec.Struct, frozen=True, omit_defaults=True):
    """A function that the model may call: its name, what it is for, and the JSON Schema of its parameters."""

    name: str
    description: str = ""
    parameters: dict[str, Any] = {}


class TextPart(msgspec.Struct, frozen=True, tag_field="part", tag="text"):
    """A piece of the answer's text."""

    text: str


class ReasoningPart(msgspec.Struct, frozen=True, tag_field="part", tag="reasoning"):
    """A piece of the model's reasoning, where the provider shows it."""

    text: str


class ToolCallPart(msgspec.Struct, frozen=True, tag_field="part", tag="tool-call"):
    """A whole call of a tool, once its arguments are complete. `arguments` is the JSON text as the model wrote it."""

    id: str
    name: str
    arguments: str
    index: int = 0


class UsagePart(msgspec.Struct, frozen=True, tag_field="part", tag="usage"):
    """Tokens used, as the provider counts them."""

    input_tokens: int
    output_tokens: int
    details: dict[str, Any] = {}


class FinishReasonPart(msgspec.Struct, frozen=True, tag_field="part", tag="finish"):
    """Why the model stopped: stop, length, tool_calls, content_filter, or the provider's own word."""

    reason: str


Part = TextPart | ReasoningPart | ToolCallPart | UsagePart | FinishReasonPart

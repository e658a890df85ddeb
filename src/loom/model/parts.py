"""The typed parts of a language model's answer, and what it is asked with. Provider-neutral."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import msgspec

__all__ = [
    "ChatMessage",
    "FinishReasonPart",
    "ObjectPart",
    "Part",
    "ReasoningPart",
    "RefusalPart",
    "TextPart",
    "ToolCallPart",
    "ToolResultPart",
    "ToolSpec",
    "Usage",
    "UsagePart",
    "part_of",
]

T = TypeVar("T")


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


class ReasoningPart(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="part", tag="reasoning"):
    """A piece of the model's reasoning, where the provider shows it.

    A piece with a `signature` has no text: it seals the reasoning before it, which some providers want back, unchanged,
    with the results of the tools that were called then. `redacted`: the signature is all that is shown.
    """

    text: str
    signature: str = ""
    redacted: bool = False


class RefusalPart(msgspec.Struct, frozen=True, tag_field="part", tag="refusal"):
    """A piece of why the model will not answer, where it is told apart from an answer's text."""

    text: str


class ToolCallPart(msgspec.Struct, frozen=True, tag_field="part", tag="tool-call"):
    """A whole call of a tool, once its arguments are complete. `arguments` is the JSON text as the model wrote it."""

    id: str
    name: str
    arguments: str
    index: int = 0


class ToolResultPart(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="part", tag="tool-result"):
    """What a tool gave, as the model is told it: text, or JSON. `is_error`: it raised, or could not be called so."""

    id: str
    name: str
    content: str
    is_error: bool = False


class UsagePart(msgspec.Struct, frozen=True, tag_field="part", tag="usage"):
    """Tokens used by one answer, as the provider counts them; each replaces the one before."""

    input_tokens: int
    output_tokens: int
    details: dict[str, Any] = {}


class FinishReasonPart(msgspec.Struct, frozen=True, tag_field="part", tag="finish"):
    """Why the model stopped: stop, length, tool_calls, content_filter, or the provider's own word."""

    reason: str


Part = TextPart | ReasoningPart | RefusalPart | ToolCallPart | ToolResultPart | UsagePart | FinishReasonPart


def part_of(data: Any) -> Part | None:
    """The part that a chunk's data is, be it as JSON has it; None for another value."""
    try:
        part: Part = msgspec.convert(data, Part)
    except msgspec.ValidationError:
        return None
    return part


class ObjectPart(msgspec.Struct, Generic[T], frozen=True, omit_defaults=True):
    """A structured answer as far as it has come.

    `partial` is JSON: what is in it stays, only its last string, list or object still grows. It is the receiver's own.
    The last one is `done`, and its `value` is the whole, checked against the type that was asked for.
    """

    partial: Any
    done: bool = False
    value: T | None = None


class Usage(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, repr_omit_defaults=True):
    """What calls of models used together, as the providers count it.

    `uncounted`: calls among `calls` that were cut before the provider told a final count, or never told one; of these
    the tokens are those it had told by then, often none.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    calls: int = 0
    uncounted: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.calls + other.calls,
            self.uncounted + other.uncounted,
        )

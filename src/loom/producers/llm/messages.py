"""Anthropic's Messages on the line: a question to JSON, a provider's events to parts. Pure; it knows no connection.

https://platform.claude.com/docs/en/api/messages and .../build-with-claude/streaming. Event and block types that are
not known are passed over, as these pages ask for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from loom.model.errors import InvalidInput, RemoteProtocolError, Unavailable
from loom.model.parts import FinishReasonPart, Part, ReasoningPart, TextPart, UsagePart
from loom.wire import json

from .ask import NO_JSON, Ask
from .calls import Calls
from .refusals import TOO_LONG, Refusals, fault_of, refusal
from .schemas import ANSWER, ANSWER_DESCRIPTION, OutputMode, schema_in_words
from .surrogates import PartJoiner, decode_cut
from .usage import usage_part

__all__ = ["ANTHROPIC", "MessageAnswer", "message_body"]

ANTHROPIC = Refusals(
    key="ANTHROPIC_API_KEY",
    statuses={
        "invalid_request_error": 400,
        "authentication_error": 401,
        "billing_error": 402,
        "permission_error": 403,
        "not_found_error": 404,
        "request_too_large": 413,
        "rate_limit_error": 429,
        "api_error": 500,
        "timeout_error": 504,
        "overloaded_error": 529,
    },
    phrases=(
        (TOO_LONG, "context_length"),
        ("content filtering policy", "content_filter"),
        ("billing_error|credit balance is too low", "quota"),
    ),
)
"""A context that is too long, a filtered answer and an empty account have no type of their own, only a message."""

_ROLES = {"user": "user", "tool": "user", "assistant": "assistant"}


def message_body(ask: Ask, model: str, max_tokens: int, *, mode: OutputMode = "json_schema") -> bytes:
    """The JSON of a streaming request. `mode` is how a structured answer is asked for.

    Raises `InvalidInput` for a message that cannot be said in this wire.
    """
    if ask.schema is not None and mode == "prompt":
        ask = msgspec.structs.replace(ask, messages=schema_in_words(ask.messages, ask.schema), schema=None)
    body: dict[str, Any] = {
        "model": model,
        "max_tokens": ask.max_tokens or max_tokens,
        "messages": _turns(ask),
        "stream": True,
    }
    if system := _system(ask.messages):
        body["system"] = system
    if ask.temperature is not None:
        body["temperature"] = ask.temperature
    if ask.tools:
        body["tools"] = [_tool(tool.name, tool.description, tool.parameters) for tool in ask.tools]
    if ask.schema is not None:
        body |= _by_tool(ask.schema) if mode == "tool" else {"output_config": {"format": _format(ask.schema)}}
    try:
        return json.encode(body)
    except NO_JSON as error:
        raise InvalidInput(f"messages: {error}", details={"field": "messages"}) from None


def _format(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "schema": schema}


def _by_tool(schema: dict[str, Any]) -> dict[str, Any]:
    tool = _tool(ANSWER, ANSWER_DESCRIPTION, schema)
    return {"tools": [tool], "tool_choice": {"type": "tool", "name": ANSWER}}


def _tool(name: str, description: str, schema: dict[str, Any]) -> dict[str, Any]:
    tool = {"name": name, "input_schema": schema or {"type": "object"}}
    return {**tool, "description": description} if description else tool


def _system(messages: list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    """The system prompt, which stands apart here: text, or blocks where one has more to say (`cache_control`)."""
    said = [(place, message) for place, message in enumerate(messages) if message["role"] in ("system", "developer")]
    contents = [message.get("content") for _, message in said]
    if all(isinstance(content, str) for content in contents):
        return "\n\n".join(contents)  # type: ignore[arg-type]
    return [block for place, message in said for block in _content(message, f"messages[{place}]")]


def _turns(ask: Ask) -> list[dict[str, Any]]:
    """The conversation: results of tools are blocks of the user's, and one turn holds all of them."""
    turns: list[dict[str, Any]] = []
    for place, message in enumerate(ask.messages):
        if message["role"] in ("system", "developer"):
            continue
        role = _ROLES.get(message["role"])
        if role is None:
            where = f"messages[{place}].role"
            raise InvalidInput(f"{where}: {message['role']!r} is not known here", details={"field": where})
        said = list(_said(message, f"messages[{place}]"))
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += said
        else:
            turns.append({"role": role, "content": said})
    if ask.continues:
        turns[-1]["content"][-1:] = _text(ask.begun.rstrip())  # no space at its end is taken
    return [_short(turn) for turn in turns if turn["content"]]


def _short(turn: dict[str, Any]) -> dict[str, Any]:
    """A turn of plain text alone as a string, as everybody writes it."""
    blocks = turn["content"]
    plain = len(blocks) == 1 and blocks[0].keys() == {"type", "text"}
    return {"role": turn["role"], "content": blocks[0]["text"]} if plain else turn


def _said(message: Mapping[str, Any], where: str) -> Iterator[dict[str, Any]]:
    if message["role"] == "tool":
        yield _result(message, where)
        return
    yield from _objects(message.get("thinking_blocks"), f"{where}.thinking_blocks")  # they come first, and unchanged
    yield from _content(message, where)
    for place, call in enumerate(_objects(message.get("tool_calls"), f"{where}.tool_calls")):
        yield _use(call, f"{where}.tool_calls[{place}]")


def _result(message: Mapping[str, Any], where: str) -> dict[str, Any]:
    content = message.get("content")
    said = content if isinstance(content, str) else list(_content(message, where))
    result = {"type": "tool_result", "tool_use_id": message.get("tool_call_id"), "content": said}
    return {**result, "is_error": True} if message.get("is_error") else result


def _use(call: Any, where: str) -> dict[str, Any]:
    try:
        function = call["function"]
        arguments = json.decode((function.get("arguments") or "{}").encode())
        return {"type": "tool_use", "id": call["id"], "name": function["name"], "input": arguments}
    except (LookupError, TypeError, AttributeError, UnicodeEncodeError, RemoteProtocolError):
        raise InvalidInput(f"{where}: no tool call with JSON arguments", details={"field": where}) from None


def _content(message: Mapping[str, Any], where: str) -> Iterator[dict[str, Any]]:
    content = message.get("content")
    if isinstance(content, str):
        yield from _text(content)
        return
    for part in _objects(content, f"{where}.content"):
        yield _image(part) if part.get("type") == "image_url" else part


def _text(text: str) -> list[dict[str, Any]]:
    return [{"type": "text", "text": text}] if text else []  # an empty block is refused


def _objects(value: Any, where: str) -> Sequence[dict[str, Any]]:
    """A list of objects, perhaps left out. Raises `InvalidInput` for anything else."""
    parts = () if value is None else value
    if not isinstance(parts, list | tuple) or not all(isinstance(part, dict) for part in parts):
        raise InvalidInput(f"{where}: no list of objects", details={"field": where})
    return parts


def _image(part: Mapping[str, Any]) -> dict[str, Any]:
    image = part.get("image_url")
    url = str(image.get("url") if isinstance(image, dict) else image)
    if match := re.match(r"data:([^;,]+);base64,", url):
        return {
            "type": "image",
            "source": {"type": "base64", "media_type": match[1], "data": url[match.end() :]},
        }
    return {"type": "image", "source": {"type": "url", "url": url}}


# --- what a provider sends -------------------------------------------------------------------------------------------


class _Block(msgspec.Struct):
    type: str = ""
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None
    id: str | None = None
    name: str | None = None
    input: Any = None


class _Delta(msgspec.Struct):
    type: str = ""
    text: str | None = None
    partial_json: str | None = None
    thinking: str | None = None
    signature: str | None = None
    stop_reason: str | None = None


class _Message(msgspec.Struct):
    type: str = ""
    content: list[_Block] | None = None
    stop_reason: str | None = None
    usage: dict[str, Any] | None = None


class _Event(msgspec.Struct):
    type: str = ""
    index: int = 0
    message: _Message | None = None
    content_block: _Block | None = None
    delta: _Delta | None = None
    usage: dict[str, Any] | None = None
    error: Any = None


_event = msgspec.json.Decoder(_Event)
_message = msgspec.json.Decoder(_Message)

_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
"""Why it stopped, in the words of every provider here; others are passed on as they are."""


class MessageAnswer:
    """One answer as it comes in; see `http.Reading`.

    What is counted by then comes with the first thing that is said: of an answer that is cut it is all there is.
    `by_tool`: the arguments of the tool are the answer's text.
    """

    def __init__(self, *, by_tool: bool = False) -> None:
        self.done = False
        self._by_tool = by_tool
        self._reason: str | None = None
        self._usage: dict[str, Any] = {}
        self._told = False
        self._calls = Calls()
        self._joined = PartJoiner()

    @property
    def finished(self) -> bool:
        """Whether the answer is complete: why it stopped is told behind its last block."""
        return self._reason is not None

    def feed(self, data: bytes, type: str = "message") -> list[Part]:
        if not data.strip() or self.done:
            return []
        event = _decode(_event, data)
        if event.type == "error" or type == "error":
            fault = fault_of(json.decode(json.mended(data)), ANTHROPIC)
            raise refusal(fault.status or 500, fault, ANTHROPIC)
        parts = [part for cut in self._event(event) for part in self._joined.feed(cut)]
        if event.type == "content_block_stop":
            parts += self._joined.end()
        if parts and not self._told and self._usage:
            self._told = True
            parts.append(self._usage_part())
        return parts

    def whole(self, body: bytes) -> list[Part]:
        message = _decode(_message, body)
        if message.type == "error":
            fault = fault_of(json.decode(json.mended(body)), ANTHROPIC)
            raise refusal(fault.status or 500, fault, ANTHROPIC)
        if message.type != "message":
            raise RemoteProtocolError("the provider's answer is JSON, but no message")
        parts: list[Part] = []
        for at, block in enumerate(message.content or ()):
            parts += [part for cut in self._block(at, block) for part in self._joined.feed(cut)] + self._joined.end()
        self._close(message.stop_reason, message.usage)
        self.done = True
        return parts

    def end(self) -> list[Part]:
        if self._reason is None:
            raise Unavailable("the provider's answer broke off before it was finished")
        reason = _REASONS.get(self._reason, self._reason)
        if self._by_tool and reason == "tool_calls":
            reason = "stop"
        parts: list[Part] = [*self._joined.end(), *self._calls.take(reason)]
        parts.append(FinishReasonPart(reason))
        if self._usage:
            parts.append(self._usage_part())
        return parts

    def _event(self, event: _Event) -> Iterator[Part]:
        match event.type:
            case "message_start" if event.message is not None:
                self._close(event.message.stop_reason, event.message.usage)
            case "content_block_start" if event.content_block is not None:
                yield from self._block(event.index, event.content_block)
            case "content_block_delta" if event.delta is not None:
                yield from self._delta(event.index, event.delta)
            case "message_delta":
                self._close(event.delta.stop_reason if event.delta else None, event.usage)
            case "message_stop":
                self.done = True

    def _close(self, reason: str | None, usage: dict[str, Any] | None) -> None:
        self._reason = reason or self._reason
        self._usage.update({name: count for name, count in (usage or {}).items() if count is not None})

    def _block(self, index: int, block: _Block) -> Iterator[Part]:
        if block.type == "tool_use":
            yield from self._begin_call(index, block)
        elif block.type == "redacted_thinking" and block.data:
            yield ReasoningPart("", block.data, redacted=True)
        if block.thinking:
            yield ReasoningPart(block.thinking)
        if block.signature:
            yield ReasoningPart("", block.signature)
        if block.text:
            yield TextPart(block.text)

    def _begin_call(self, index: int, block: _Block) -> Iterator[Part]:
        whole = json.encode(block.input).decode() if block.input else ""  # streamed, it begins empty
        if self._by_tool:
            if whole:
                yield TextPart(whole)
        else:
            self._calls.add(self._calls.begin(block.id or "", block.name or "", index), whole)

    def _delta(self, index: int, delta: _Delta) -> Iterator[Part]:
        if delta.text:
            yield TextPart(delta.text)
        if delta.thinking:
            yield ReasoningPart(delta.thinking)
        if delta.signature:
            yield ReasoningPart("", delta.signature)
        if delta.partial_json:
            if self._by_tool:
                yield TextPart(delta.partial_json)
            elif (call := self._calls.at(index)) is not None:
                self._calls.add(call, delta.partial_json)

    def _usage_part(self) -> UsagePart:
        return usage_part(self._usage, "input_tokens", "output_tokens")


def _decode(decoder: Any, data: bytes) -> Any:
    json.check_depth(data)
    try:
        return decode_cut(data, decoder)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RemoteProtocolError(f"the provider sent what is no message: {error}") from None

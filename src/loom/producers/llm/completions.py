"""OpenAI's Chat Completions on the line: a question to JSON, a provider's events to parts.

Pure; it knows no connection. What is tolerated beyond the API reference is what servers that call themselves
compatible really send (Cloudflare Workers AI, vLLM, SGLang, Ollama, llama.cpp, gateways before them).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from loom.model.errors import InvalidInput, RemoteProtocolError, Unavailable
from loom.model.parts import FinishReasonPart, Part, ReasoningPart, TextPart, ToolSpec
from loom.wire import json

from .ask import NO_JSON, Ask
from .calls import Call, Calls
from .refusals import TOO_LONG, Refusals, fault_of, refusal
from .schemas import ANSWER, ANSWER_DESCRIPTION, OutputMode, schema_in_words, strict_schema
from .surrogates import PartJoiner, decode_cut
from .usage import usage_part

__all__ = ["OPENAI", "Answer", "Prefix", "request_body"]

OPENAI = Refusals(
    key="OPENAI_API_KEY",
    statuses={
        "authentication_error": 401,
        "invalid_api_key": 401,
        "permission_error": 403,
        "insufficient_quota": 429,
        "rate_limit_error": 429,
        "rate_limit_exceeded": 429,
        "invalid_request_error": 400,
        "context_length_exceeded": 400,
        "exceed_context_size_error": 400,
        "content_filter": 400,
        "not_found_error": 404,
        "model_not_found": 404,
    },
    phrases=(
        (TOO_LONG, "context_length"),
        ("content_filter|content_policy|content management policy", "content_filter"),
        ("insufficient_quota|billing_hard_limit", "quota"),
    ),
)
"""Any other word is the provider's own fault, to be tried again. The phrases are OpenAI's, Azure's, llama.cpp's (code),
and vLLM's and Cloudflare's, which have no code for them (message)."""


class Prefix(NamedTuple):
    """How a server is told that the last message is the beginning of its answer, to be continued."""

    message: dict[str, Any]
    """Fields of that message."""
    body: dict[str, Any]
    """Fields of the request."""


def request_body(
    ask: Ask, model: str, *, limit_field: str, prefix: Prefix | None = None, mode: OutputMode = "json_schema"
) -> bytes:
    """The JSON of a streaming request. `limit_field` is what this server calls the bound on the answer's tokens. `mode`
    is how a structured answer is asked for."""
    body: dict[str, Any] = {
        "model": model,
        "messages": [_plain(message) for message in ask.messages],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if prefix is not None:
        body["messages"][-1] |= prefix.message
        body.update(prefix.body)
    if ask.schema is not None:
        _ask_for(ask.schema, mode, body)
    if ask.temperature is not None:
        body["temperature"] = ask.temperature
    if ask.max_tokens is not None:
        body[limit_field] = ask.max_tokens
    if ask.tools:
        body["tools"] = [{"type": "function", "function": tool} for tool in ask.tools]
    try:
        return json.encode(body)
    except NO_JSON as error:
        raise InvalidInput(f"messages: {error}", details={"field": "messages"}) from None


def _ask_for(schema: dict[str, Any], mode: OutputMode, body: dict[str, Any]) -> None:
    match mode:
        case "json_schema":
            strict = strict_schema(schema)
            form = {"name": ANSWER, "schema": strict or schema, "strict": strict is not None}
            body["response_format"] = {"type": "json_schema", "json_schema": form}
        case "json_object":
            body["response_format"] = {"type": "json_object"}
            body["messages"] = schema_in_words(body["messages"], schema)
        case "tool":
            tool = ToolSpec(ANSWER, ANSWER_DESCRIPTION, schema)
            body["tools"] = [{"type": "function", "function": tool}]
            body["tool_choice"] = {"type": "function", "function": {"name": ANSWER}}
        case "prompt":
            body["messages"] = schema_in_words(body["messages"], schema)


def _plain(message: dict[str, Any]) -> dict[str, Any]:
    """Without what only Anthropic's wire can say: OpenAI refuses fields that it does not know."""
    return {name: value for name, value in message.items() if name not in ("is_error", "thinking_blocks")}


# --- what a provider sends -------------------------------------------------------------------------------------------


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: Any = None  # a string, whole or in pieces; an object from some


class _CallPiece(msgspec.Struct):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _Delta(msgspec.Struct):
    content: str | int | list[Any] | None = None  # a bare number from Workers AI, typed parts from Mistral
    refusal: str | None = None
    reasoning_content: Any = None
    reasoning: Any = None
    tool_calls: list[_CallPiece] | None = None


class _Choice(msgspec.Struct):
    index: int | None = None
    delta: _Delta | None = None
    message: _Delta | None = None  # of an answer that is not streamed
    finish_reason: str | msgspec.UnsetType | None = msgspec.UNSET


class _Event(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: dict[str, Any] | None = None
    error: Any = None
    errors: Any = None
    object: Any = None


_event = msgspec.json.Decoder(_Event)

_BROKEN_OFF = frozenset({"error", "abort"})
"""Finish reasons that say the answer is none: gateways' and vLLM's words for a failure on the way."""


class Answer:
    """One answer as it comes in: `feed` it each event's data, read what it gives, ask for the `end`.

    The finish reason is held back until the end, since some servers go on behind it, or say it several times.
    `by_tool`: the arguments of the tool are the answer's text.
    """

    def __init__(self, *, by_tool: bool = False) -> None:
        self.done = False
        """The server has said that nothing follows."""
        self._by_tool = by_tool
        self._reason: str | None = None
        self._tells_reason = False
        self._spoke = False
        self._usage: dict[str, Any] | None = None
        self._counted = False
        self._calls = Calls()
        self._joined = PartJoiner()

    @property
    def finished(self) -> bool:
        """True once the answer is complete. A server that never sends a finish reason ends its answer with [DONE], but
        not where nothing else came: some refuse so."""
        return self._reason is not None or (self.done and self._spoke and not self._tells_reason)

    def feed(self, data: bytes, type: str = "message") -> list[Part]:
        """The parts that one event's data completes.

        Raises `RemoteProtocolError` for what is no event, and what `refusal` says for an error in mid-stream.
        """
        data = data.strip()
        if data == b"[DONE]":
            self.done = True
        if not data or self.done:
            return []
        return self._read(data, is_error=type == "error")

    def whole(self, body: bytes) -> list[Part]:
        """The parts of an answer that came as one JSON document, though a stream was asked for. Raises as `feed`."""
        parts = self._read(body)
        if not parts and self._reason is None and not self._calls:
            raise RemoteProtocolError("the provider's answer is JSON, but no chat completion")
        self.done, self._tells_reason = True, False
        return parts

    def end(self) -> list[Part]:
        """What is told last: tool calls, the finish reason, the usage. Raises `Unavailable` if the answer was cut."""
        if not self.finished:
            raise Unavailable("the provider's answer broke off before it was finished")
        reason = self._reason or "unknown"
        if self._by_tool and reason == "tool_calls":
            reason = "stop"
        parts: list[Part] = [*self._joined.end(), *self._calls.take(reason)]
        parts.append(FinishReasonPart(reason))
        # Some send a running count in every event: only the one that comes alone, or before [DONE], is the last.
        if self._usage and (self._counted or self.done):
            parts.append(usage_part(self._usage, "prompt_tokens", "completion_tokens"))
        return parts

    def _read(self, data: bytes, *, is_error: bool = False) -> list[Part]:
        event = _decode(data)
        if event.error or event.errors or is_error or event.object == "error":
            fault = fault_of(json.decode(json.mended(data)), OPENAI)
            raise refusal(fault.status or 500, fault, OPENAI)
        if event.usage:
            self._usage, self._counted = event.usage, not event.choices
        self._spoke = self._spoke or bool(event.choices)
        # One answer was asked for; whatever else comes is not it.
        said = [part for choice in event.choices or () if not choice.index for part in self._choice(choice)]
        return [part for cut in said for part in self._joined.feed(cut)]

    def _choice(self, choice: _Choice) -> Iterator[Part]:
        if choice.finish_reason is not msgspec.UNSET:
            self._tells_reason = True
            self._reason = choice.finish_reason or self._reason
        if self._reason in _BROKEN_OFF:
            raise Unavailable(f"the provider ended its answer with {self._reason!r}")
        delta = choice.delta or choice.message
        if delta is None:
            return
        if isinstance(thought := delta.reasoning_content or delta.reasoning, str) and thought:
            yield ReasoningPart(thought)
        yield from _content(delta.content)
        if delta.refusal:
            yield TextPart(delta.refusal)
        for piece in delta.tool_calls or ():
            if self._by_tool:
                yield TextPart(_arguments(piece))
            else:
                self._add_piece(piece)

    def _add_piece(self, piece: _CallPiece) -> None:
        call = self._call_of(piece, (piece.function or _Function()).name or "")
        self._calls.add(call, _arguments(piece))

    def _call_of(self, piece: _CallPiece, name: str) -> Call:
        index = piece.index
        known = self._calls.last() if index is None else self._calls.at(index)
        if known is None or _begins_another(known, piece.id or "", name, indexed=index is not None):
            known = self._calls.begin(piece.id or "", name, index)
        known.name = known.name or name
        return known


def _arguments(piece: _CallPiece) -> str:
    given = (piece.function or _Function()).arguments
    return given if isinstance(given, str) else "" if given is None else json.encode(given).decode()


def _decode(data: bytes) -> _Event:
    json.check_depth(data)
    try:
        return decode_cut(data, _event)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RemoteProtocolError(f"the provider sent what is no chat completion: {error}") from None


def _content(content: str | int | list[Any] | None) -> Iterator[Part]:
    if isinstance(content, list):
        for part in content:
            yield from _content_part(part)
    elif content is not None and content != "":
        yield TextPart(str(content))


def _content_part(part: Any) -> Iterator[Part]:
    """One of Mistral's typed parts: ``{"type": "text", "text"}`` or ``{"type": "thinking", "thinking": [those]}``."""
    if not isinstance(part, dict):
        raise RemoteProtocolError("the provider sent a content part that is no object")
    if isinstance(text := part.get("text"), str) and text:
        yield TextPart(text)
    thinking = part.get("thinking")
    for thought in thinking if isinstance(thinking, list) else ():
        yield from (ReasoningPart(said.text) for said in _content_part(thought) if isinstance(said, TextPart))


def _begins_another(known: Call, id: str, name: str, *, indexed: bool) -> bool:
    """Whether a piece for the place of a known call begins another call after all.

    Ollama gives all calls of an answer the index 0, older ones none; Gemini's have neither index nor id. Others repeat
    id and name in every piece. Only a piece that names its function can begin one.
    """
    if not name:
        return False
    if id:
        return id != known.id
    return known.is_complete or not indexed

"""A chat request as an actor's input: what is asked, checked, and mapped to the actor's parameters by their names."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, Any

import msgspec

from loom.model import limits
from loom.model.errors import InvalidInput
from loom.wire.json import decode, decode_as

__all__ = ["ChatBody", "ChatRequest", "Completion", "Model", "ModelList", "ProviderChatBody", "read_request"]

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=limits.MODEL_NAME)]
Tokens = Annotated[int, msgspec.Meta(ge=1, le=2**53)]
One = Annotated[int, msgspec.Meta(ge=1, le=1)]
Heat = Annotated[float, msgspec.Meta(ge=0)]


class Message(msgspec.Struct, frozen=True):
    """One message of the conversation; its other fields reach the actor as they are."""

    role: Annotated[str, msgspec.Meta(min_length=1)]
    content: str | list[dict[str, Any]] | None = None


class Function(msgspec.Struct, frozen=True):
    name: Annotated[str, msgspec.Meta(min_length=1)]
    description: str | None = None
    parameters: dict[str, Any] | None = None


class Tool(msgspec.Struct, frozen=True):
    """A tool that the client would run. The actor gets `function` alone: a `loom.ToolSpec`."""

    function: Function


class StreamOptions(msgspec.Struct, frozen=True):
    include_usage: bool | None = None


class ProviderChatBody(msgspec.Struct, frozen=True, kw_only=True):
    """The body of ``POST /api/{provider}/chat``: it streams unless told not to. Any other field of the API, or of your
    own, goes to the actor's parameter of that name, if it has one."""

    messages: Annotated[list[Message], msgspec.Meta(min_length=1)]
    model: Name | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: One | None = None
    temperature: Heat | None = None
    max_tokens: Tokens | None = None
    max_completion_tokens: Tokens | None = None
    stop: str | list[str] | None = None
    tools: list[Tool] | None = None
    tool_choice: str | dict[str, Any] | None = None


class ChatBody(ProviderChatBody, frozen=True, kw_only=True):
    """The body of ``POST /v1/chat/completions``. `model` names an actor, or goes to the app's default one as it is. Any
    other field of the API, or of your own, goes to the actor's parameter of that name, if it has one."""

    model: Name


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """``chat.completion``: the whole answer."""

    id: str
    object: str
    created: int
    model: str
    choices: list[dict[str, Any]]
    usage: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET


class Model(msgspec.Struct, frozen=True):
    """An actor, as OpenAI lists models."""

    id: str
    created: int
    object: str = "model"
    owned_by: str = "loom"


class ModelList(msgspec.Struct, frozen=True):
    """Every actor."""

    data: list[Model]
    object: str = "list"


class ChatRequest:
    """What is asked: the body, and every field of it by name (null is as good as left out)."""

    def __init__(self, body: ProviderChatBody, fields: dict[str, Any]) -> None:
        self.body = body
        self._fields = {name: value for name, value in fields.items() if value is not None}
        self._fields["messages"] = [_without_nulls(message) for message in fields["messages"]]
        if body.tools:
            self._fields["tools"] = [_without_nulls(tool["function"]) for tool in fields["tools"]]
        for name, other in (("max_tokens", "max_completion_tokens"), ("max_completion_tokens", "max_tokens")):
            if name not in self._fields and other in self._fields:
                self._fields[name] = self._fields[other]  # the one is the other's newer name

    @property
    def includes_usage(self) -> bool:
        """Whether a stream ends with the tokens used."""
        options = self.body.stream_options
        return bool(options and options.include_usage)

    def input_for(self, actor: str, schema: Mapping[str, Any]) -> dict[str, Any]:
        """The input that this request is to an actor whose input has this JSON Schema.

        Each parameter gets the field of its name. Without `messages` among them, the one that takes a text gets the
        user's last. Raises `InvalidInput` when neither is there, or the user said nothing.
        """
        parameters, required = schema.get("properties", {}), schema.get("required", ())
        given = {name: self._fields[name] for name in parameters if name in self._fields and name not in _OURS}
        if given.get("model") == actor and "model" not in required:
            del given["model"]  # its own name says nothing to it, and to the model behind it something wrong
        if "messages" not in parameters:
            given[_prompt_of(actor, parameters, required)] = self._last_text()
        return given

    def _last_text(self) -> str:
        for message in reversed(self.body.messages):
            if message.role == "user":
                return _text(message.content)
        raise InvalidInput("messages: none is the user's", details={"field": "messages"})


def read_request(data: bytes, type: type[ProviderChatBody], **more: Any) -> ChatRequest:
    """The request, with `more` fields. Unknown ones are kept. Raises `RemoteProtocolError` (not JSON, or too deep),
    `InvalidInput` naming the field."""
    return ChatRequest(decode_as(data, type), {**decode(data), **more})


_OURS = frozenset({"stream", "stream_options", "n"})
"""How the answer is to be sent: no matter of the actor's."""

_KNOWN = frozenset({
    "model", "stop", "user", "tool_choice", "reasoning_effort", "verbosity", "service_tier", "safety_identifier",
    "prompt_cache_key",
})  # fmt: skip
"""Fields of the API that hold a text: a parameter of such a name is not for the user's."""


def _prompt_of(actor: str, parameters: Mapping[str, Any], required: Collection[str]) -> str:
    """The sole parameter that may be a text; of several the sole required one."""
    texts = [name for name, form in parameters.items() if name not in _KNOWN and _takes_text(form)]
    for found in (texts, [name for name in texts if name in required]):
        if len(found) == 1:
            return found[0]
    raise InvalidInput(
        f"actor {actor!r} cannot be asked in messages: it has no parameter `messages`, nor one that takes a text",
        details={"field": "messages"},
    )


def _takes_text(form: Any) -> bool:
    """Also what may be left out (``str | None``), or is not annotated."""
    if not isinstance(form, dict):
        return False
    kinds = [form, *form.get("anyOf", ())]
    return not (form.keys() - {"default", "title"}) or any(
        kind.get("type") == "string" and "enum" not in kind for kind in kinds
    )


def _text(content: str | list[dict[str, Any]] | None) -> str:
    if isinstance(content, str):
        return content
    parts = [part.get("text") for part in content or () if part.get("type") == "text"]
    return "".join(part for part in parts if isinstance(part, str))


def _without_nulls(value: dict[str, Any]) -> dict[str, Any]:
    return {name: part for name, part in value.items() if part is not None}

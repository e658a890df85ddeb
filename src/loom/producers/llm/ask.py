"""One question to a model as a value. It knows no provider."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from loom.model.errors import InvalidInput, UsageError
from loom.model.parts import ChatMessage, ToolSpec

__all__ = ["NO_JSON", "Ask", "text_of"]

NO_JSON = (TypeError, UnicodeEncodeError, RecursionError)
"""What encoding a message raises that has no JSON: an object of some class, half a surrogate pair, one in itself."""


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """One question to a model, checked: what a provider is given, and what a fake records.

    `schema`: the answer's text shall be JSON of this schema, an object. `continues`: the last message is the beginning
    of the answer, and only what follows it is wanted; a provider that cannot do so raises `StartOver`.
    """

    messages: list[dict[str, Any]]
    model: str | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    tools: tuple[ToolSpec, ...] = ()
    schema: dict[str, Any] | None = None
    continues: bool = False

    @property
    def prompt(self) -> str:
        """The text of the last message of the user; "" if there is none."""
        said = (text_of(message) for message in reversed(self.messages) if message["role"] == "user")
        return next(said, "")

    @property
    def begun(self) -> str:
        """The text of an answer that is begun and to be continued: a last message of the assistant's, else ""."""
        last = self.messages[-1]
        return text_of(last) if last["role"] == "assistant" else ""

    @classmethod
    def make(
        cls,
        prompt: str | None,
        messages: Sequence[ChatMessage | Mapping[str, Any]] | None = None,
        *,
        model: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        tools: Sequence[ToolSpec] = (),
        schema: dict[str, Any] | None = None,
        continue_from: str = "",
    ) -> Ask:
        """Raises `UsageError` unless either prompt or messages is given, `InvalidInput` naming what is amiss."""
        if (prompt is None) == (messages is None):
            raise UsageError("give a model either a prompt or messages, and not both")
        if max_tokens is not None and max_tokens < 1:
            raise InvalidInput(f"max_tokens: {max_tokens} is less than 1", details={"field": "max_tokens"})
        if temperature is not None and not 0 <= temperature < math.inf:
            raise InvalidInput(f"temperature: {temperature} is no number from 0 up", details={"field": "temperature"})
        conversation = [{"role": "user", "content": prompt}] if messages is None else _conversation(messages)
        begun = [{"role": "assistant", "content": continue_from}] if continue_from else []
        return cls(
            messages=conversation + begun,
            model=model,
            temperature=temperature,
            max_tokens=max_tokens,
            tools=tuple(tools),
            schema=schema,
            continues=bool(begun),
        )


def _conversation(messages: Sequence[ChatMessage | Mapping[str, Any]]) -> list[dict[str, Any]]:
    if not messages:
        raise InvalidInput("messages: at least one is needed", details={"field": "messages"})
    return [_message(message, place) for place, message in enumerate(messages)]


def _message(message: ChatMessage | Mapping[str, Any], place: int) -> dict[str, Any]:
    given: Any = msgspec.to_builtins(message) if isinstance(message, ChatMessage) else message
    if not isinstance(given, Mapping) or not isinstance(given.get("role"), str):
        where = f"messages[{place}].role"
        raise InvalidInput(f"{where}: a message needs a role, such as 'user'", details={"field": where})
    return dict(given)


def text_of(message: Mapping[str, Any]) -> str:
    """A message's text: its content, or the text among its content parts."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = [part.get("text") for part in parts if isinstance(part, Mapping) and part.get("type") == "text"]
    return "".join(text for text in texts if isinstance(text, str))

"""Structured answers: JSON that comes in pieces, and in the end is what was asked for or an error. Pure but for the
parts that it reads."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Generic, TypeVar, cast

from loom.model import limits
from loom.model.errors import InvalidInput, LimitExceeded, RemoteProtocolError
from loom.model.parts import FinishReasonPart, ObjectPart, Part, TextPart
from loom.wire import json
from loom.wire.codec import convert
from loom.wire.partial import UNKNOWN, PartialJson

from .schemas import object_schema
from .surrogates import sound_text

__all__ = ["Form", "read_object"]

AI_ERROR_ANSWER = 2500
"""Characters of an answer that does not fit its type, kept in the error's details: however escaped, they fit
`ERROR_BYTES`."""

PARTIAL_STEPS = 100
"""A partial value is given again once the answer is a hundredth longer. Each costs as much as all that has come, so all
of them together cost about a hundred times the answer, and not its square."""

T = TypeVar("T")


class Form(Generic[T]):
    """The type of an answer, and the schema that asks for it. Raises `UsageError` for a type that has none."""

    def __init__(self, type: type[T]) -> None:
        self._type = type
        self.schema, self._field = object_schema(type)

    @property
    def name(self) -> str:
        return getattr(self._type, "__name__", str(self._type))

    def partial(self, value: Any) -> Any:
        """What is known of the answer, of what is known of the JSON; `UNKNOWN` if that is nothing."""
        return value.get(self._field, UNKNOWN) if self._field and value is not UNKNOWN else value

    def final(self, text: str) -> T:
        """The whole answer. Raises `RemoteProtocolError` naming the field that does not fit."""
        try:
            value = self.partial(json.decode(json.mended(sound_text(text).encode())))
            if value is UNKNOWN:
                raise InvalidInput(f"{self._field}: missing", details={"field": self._field})
            return cast(T, convert(value, self._type))
        except (InvalidInput, RemoteProtocolError) as error:
            details = {**getattr(error, "details", {}), "answer": text[:AI_ERROR_ANSWER]}
            raise RemoteProtocolError(f"the model's answer is no {self.name}: {error}", details=details) from None


async def read_object(parts: AsyncGenerator[Part, None], form: Form[T]) -> AsyncGenerator[ObjectPart[T], None]:
    """The answer as far as it has come, each time that more of it is known and it has grown by a hundredth; the last
    one is the whole, checked.

    Raises `RemoteProtocolError` for an answer that does not fit, `LimitExceeded` for one that was cut at its longest,
    `InvalidInput` (`content_filter`) for one that the provider held back.
    """
    partial, said, reason, length, before = PartialJson("{"), list[str](), "", 0, UNKNOWN
    shown = 0
    async with aclosing(parts):
        async for part in parts:
            if isinstance(part, TextPart):
                length += len(part.text)
                _check_length(length)
                said.append(part.text)
                partial.feed(part.text)
                if length - shown < shown // PARTIAL_STEPS:
                    continue
                shown = length
                value = form.partial(partial.value)
                if value is not UNKNOWN and value != before:
                    before = value
                    yield ObjectPart(value)
            elif isinstance(part, FinishReasonPart):
                reason = part.reason
    _check_whole(partial, reason, form, "".join(said))
    whole = form.final(partial.text)
    yield ObjectPart(form.partial(partial.value), True, whole)


def _check_length(length: int) -> None:
    if length > limits.AI_ANSWER_CHARACTERS:
        raise LimitExceeded(f"the answer is longer than {limits.AI_ANSWER_CHARACTERS} characters", code="too_large")


def _check_whole(partial: PartialJson, reason: str, form: Form[Any], said: str) -> None:
    if partial.complete:
        return
    if reason == "length":
        raise LimitExceeded(f"the model's {form.name} is cut: max_tokens did not suffice", code="too_large")
    if reason == "content_filter":
        raise InvalidInput(f"the model refused to give a {form.name}", code="content_filter")
    details = {"answer": said[:AI_ERROR_ANSWER]}
    raise RemoteProtocolError(f"the model's answer is no {form.name}: no whole JSON", details=details)

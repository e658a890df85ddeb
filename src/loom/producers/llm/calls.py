"""Tool calls, gathered from the pieces in which providers send them. Pure."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from loom.model import limits
from loom.model.errors import LimitExceeded
from loom.model.parts import ToolCallPart
from loom.wire import json

from .surrogates import sound_text

__all__ = ["CUT_SHORT", "Call", "Calls"]

CUT_SHORT = frozenset({"length", "content_filter"})
"""Finish reasons that leave a tool call's arguments perhaps unfinished."""


class Call:
    """A tool call in the making."""

    def __init__(self, id: str, name: str) -> None:
        self.id = id
        self.name = name
        self._pieces: list[str] = []

    @property
    def arguments(self) -> str:
        """The JSON as it has come, with U+FFFD for halves of characters."""
        return json.mended(sound_text("".join(self._pieces)).encode()).decode()

    @property
    def is_complete(self) -> bool:
        try:
            msgspec.json.decode(self.arguments)
        except msgspec.DecodeError:
            return False
        return True


class Calls:
    """The calls of one answer, in the order they began."""

    def __init__(self) -> None:
        self._calls: list[Call] = []
        self._by_index: dict[int, Call] = {}
        self._length = 0

    def __len__(self) -> int:
        return len(self._calls)

    def last(self) -> Call | None:
        """The call that began last."""
        return self._calls[-1] if self._calls else None

    def at(self, index: int) -> Call | None:
        """The call whose pieces have this index."""
        return self._by_index.get(index)

    def begin(self, id: str, name: str, index: int | None = None) -> Call:
        """A new call. Raises `LimitExceeded` beyond `limits.AI_TOOL_CALLS`."""
        if len(self._calls) == limits.AI_TOOL_CALLS:
            raise LimitExceeded(f"the model made more than {limits.AI_TOOL_CALLS} tool calls", code="too_large")
        call = Call(id or f"call_{len(self._calls)}", name)
        self._calls.append(call)
        if index is not None:
            self._by_index[index] = call
        return call

    def add(self, call: Call, arguments: str) -> None:
        """A further piece of its arguments. Raises `LimitExceeded` beyond `limits.AI_ARGUMENT_CHARACTERS` of all."""
        self._length += len(arguments)
        if self._length > limits.AI_ARGUMENT_CHARACTERS:
            raise LimitExceeded("the arguments of the model's tool calls are too long", code="too_large")
        call._pieces.append(arguments)

    def take(self, reason: str) -> Iterator[ToolCallPart]:
        """All calls, once the answer has finished for this `reason`; without the one that it cut short."""
        for index, call in enumerate(self._calls):
            if reason not in CUT_SHORT or call.is_complete:
                yield ToolCallPart(call.id, call.name, call.arguments or "{}", index)

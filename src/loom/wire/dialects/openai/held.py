"""What is held back until an answer's end: tool calls, the finish reason and the usage.

A tool's result, or output behind a finish reason, shows that the producer ran those tools itself.
"""

from __future__ import annotations

from typing import Any

from loom.model import limits
from loom.model.errors import RunFailed
from loom.model.parts import FinishReasonPart, ToolCallPart, ToolResultPart, Usage, UsagePart
from loom.model.retraction import Retraction

from .pieces import Last

__all__ = ["Held"]

_DETAILS = ("prompt_tokens_details", "completion_tokens_details")


class Held:
    """Tool calls, their results and the finish reason of the last round, the usage of all; each with its place."""

    def __init__(self) -> None:
        self._parts: list[tuple[int, str | None, Last]] = []
        self._finished = False
        self._early: int | None = None  # a count before its round's finish reason: the next one replaces it

    def add(self, seq: int, source: str | None, part: Last) -> None:
        """Raises `RunFailed` when there are too many."""
        if self._finished and not isinstance(part, UsagePart):
            self.go_on()
        if isinstance(part, UsagePart):
            self._replace_early(None if self._finished else seq)
        if len(self._parts) >= limits.COMPLETION_PARTS:
            most = f"more than {limits.COMPLETION_PARTS} tool calls, results and usage counts in one answer"
            raise RunFailed(most, code="invalid_output")
        self._parts.append((seq, source, part))
        self._finished = self._finished or isinstance(part, FinishReasonPart)

    def _replace_early(self, early: int | None) -> None:
        if self._early is not None:
            self._parts = [each for each in self._parts if each[0] != self._early]
        self._early = early

    def go_on(self) -> None:
        """More is said: what ended before was a round of the producer's own."""
        if self._finished:
            self._parts = [each for each in self._parts if isinstance(each[2], UsagePart)]
            self._finished = False

    def begin_attempt(self) -> None:
        """No later count completes one of an attempt that is gone."""
        self._early = None

    def retract(self, retraction: Retraction) -> None:
        retraction.cut(self._parts, lambda each: each[:2])
        self._finished = any(isinstance(part, FinishReasonPart) for _, _, part in self._parts)

    @property
    def calls(self) -> list[dict[str, Any]]:
        """Those that wait for a result. Ids may come again: a result is of the calls before it."""
        given = {part.id: seq for seq, _, part in self._parts if isinstance(part, ToolResultPart)}
        asked = [(seq, part) for seq, _, part in self._parts if isinstance(part, ToolCallPart)]
        calls = [part for seq, part in asked if given.get(part.id, 0) < seq]
        return [
            {
                "index": index,
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for index, call in enumerate(calls)
        ]

    @property
    def reason(self) -> str:
        """One of OpenAI's words: clients know no others."""
        told = next((part.reason for _, _, part in self._parts if isinstance(part, FinishReasonPart)), None)
        if told in ("length", "content_filter"):
            return told
        return "tool_calls" if self.calls else "stop"

    def usage(self, of_run: Usage | None) -> dict[str, Any] | None:
        """All rounds' together, else what the run's models used; None if nobody counted. Details only of a sole count:
        providers' differ."""
        counts = [part for _, _, part in self._parts if isinstance(part, UsagePart)]
        if not counts and of_run is not None and of_run.calls > of_run.uncounted:
            counts = [UsagePart(of_run.input_tokens, of_run.output_tokens)]
        if not counts:
            return None
        sent, said = sum(count.input_tokens for count in counts), sum(count.output_tokens for count in counts)
        details = counts[0].details if len(counts) == 1 else {}
        known = {name: details[name] for name in _DETAILS if isinstance(details.get(name), dict)}
        return {"prompt_tokens": sent, "completion_tokens": said, "total_tokens": sent + said, **known}

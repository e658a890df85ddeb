"""Counts of tokens, whatever a provider sends as such."""

from __future__ import annotations

import math
from typing import Any

import pytest

from loom.model.parts import UsagePart
from loom.producers.llm.completions import Answer
from loom.producers.llm.messages import MessageAnswer
from loom.producers.llm.usage import usage_part
from loom.wire.json import encode

ODD: list[Any] = [math.inf, -math.inf, math.nan, None, "7", [], {}, -1, 10**400, "\udc80"]


@pytest.mark.parametrize("odd", ODD)
def test_a_count_that_is_none_is_zero(odd: Any) -> None:
    count = 10**400 if odd == 10**400 else 0
    part = usage_part({"sent": odd, "said": 2.0, "more": {"text": odd}}, "sent", "said")
    assert (part.input_tokens, part.output_tokens) == (count, 2)
    assert encode(part)


@pytest.mark.parametrize("text", ["\\ud800", "\\udc80", "\\ud83d\\ude00"])
def test_half_a_character_in_a_count_harms_nothing(text: str) -> None:
    """Texts that come in pieces keep their halves; none comes in a count."""
    counts = f'{{"x\\ud800": 1, "prompt_tokens": 1, "output_tokens": 1e999, "text": "{text}"}}'
    answer = Answer()
    answer.feed(b'{"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": "stop"}]}')
    answer.feed(b'{"choices": [], "usage": %s}' % counts.encode())
    message = MessageAnswer()
    message.feed(b'{"type": "message_start", "message": {"usage": %s}}' % counts.encode(), "message_start")
    message.feed(b'{"type": "message_delta", "delta": {"stop_reason": "end_turn"}}', "message_delta")
    message.feed(b'{"type": "message_stop"}', "message_stop")
    for parts in (answer.end(), message.end()):
        (usage,) = (part for part in parts if isinstance(part, UsagePart))
        assert encode(usage)

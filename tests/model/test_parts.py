"""Parts of an answer: told apart by their tag, over JSON and back."""

from __future__ import annotations

import msgspec
import pytest

from loom.model.parts import (
    ChatMessage,
    FinishReasonPart,
    Part,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolSpec,
    UsagePart,
)

PARTS: list[tuple[Part, bytes]] = [
    (TextPart("hi"), b'{"part":"text","text":"hi"}'),
    (ReasoningPart("hm"), b'{"part":"reasoning","text":"hm"}'),
    (ToolCallPart("1", "f", "{}"), b'{"part":"tool-call","id":"1","name":"f","arguments":"{}","index":0}'),
    (UsagePart(1, 2), b'{"part":"usage","input_tokens":1,"output_tokens":2,"details":{}}'),
    (FinishReasonPart("stop"), b'{"part":"finish","reason":"stop"}'),
]


@pytest.mark.parametrize(("part", "json"), PARTS)
def test_each_part_is_told_by_its_tag(part: Part, json: bytes) -> None:
    assert msgspec.json.encode(part) == json
    assert msgspec.json.decode(json, type=Part) == part


def test_a_message_has_the_compatible_shape() -> None:
    assert msgspec.json.encode(ChatMessage("user", "hi")) == b'{"role":"user","content":"hi"}'
    assert msgspec.json.encode(ToolSpec("f")) == b'{"name":"f"}'

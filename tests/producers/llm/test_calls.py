"""Tool calls from their pieces. What each provider's pieces look like is tested with its wire."""

from __future__ import annotations

import pytest

from loom.model import limits
from loom.model.errors import LimitExceeded
from loom.model.parts import ToolCallPart
from loom.producers.llm.calls import Calls


def test_pieces_become_calls_in_the_order_they_began() -> None:
    calls = Calls()
    first, second = calls.begin("a", "add", 3), calls.begin("", "now")
    calls.add(first, '{"x":')
    calls.add(first, " 1}")
    assert calls.at(3) is first
    assert calls.at(0) is None
    assert calls.last() is second
    assert list(calls.take("tool_calls")) == [
        ToolCallPart("a", "add", '{"x": 1}', 0),
        ToolCallPart("call_1", "now", "{}", 1),
    ]


@pytest.mark.parametrize(("reason", "names"), [("stop", ["a", "b"]), ("length", ["a"]), ("content_filter", ["a"])])
def test_what_was_cut_short_is_left_out(reason: str, names: list[str]) -> None:
    calls = Calls()
    calls.add(calls.begin("1", "a"), "{}")
    calls.add(calls.begin("2", "b"), '{"x"')
    assert [call.name for call in calls.take(reason)] == names


def test_they_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "AI_TOOL_CALLS", 2)
    monkeypatch.setattr(limits, "AI_ARGUMENT_CHARACTERS", 3)
    calls = Calls()
    first, second = calls.begin("1", "a"), calls.begin("2", "b")
    calls.add(first, "{}")
    with pytest.raises(LimitExceeded):
        calls.add(second, "{}")
    with pytest.raises(LimitExceeded):
        calls.begin("3", "c")

"""What is held back until the end: of which round, and what becomes of it when more is said or some is taken back."""

from __future__ import annotations

import pytest

from loom.model import limits
from loom.model.errors import RunFailed
from loom.model.parts import FinishReasonPart, ToolCallPart, ToolResultPart, Usage, UsagePart
from loom.model.retraction import Retraction
from loom.wire.dialects.openai.held import Held
from loom.wire.dialects.openai.pieces import Last

CALL, RESULT = ToolCallPart("c", "f", "{}"), ToolResultPart("c", "f", "r")
DETAILS = {"prompt_tokens_details": {"cached_tokens": 1}}


def holding(*parts: Last) -> Held:
    held = Held()
    for seq, part in enumerate(parts, 2):
        held.add(seq, None, part)
    return held


def test_a_call_waits_for_its_result() -> None:
    held = holding(CALL)
    assert [call["id"] for call in held.calls] == ["c"]
    assert held.reason == "tool_calls"
    held.add(3, None, RESULT)
    assert held.calls == []
    assert held.reason == "stop"


def test_what_is_said_behind_a_finish_reason_ends_its_round() -> None:
    """Its usage stays."""
    held = holding(CALL, FinishReasonPart("tool_calls"), UsagePart(1, 2))
    held.go_on()
    assert (held.calls, held.reason) == ([], "stop")
    usage = held.usage(None)
    assert usage is not None
    assert usage["total_tokens"] == 3


def test_what_an_attempt_takes_back_is_held_no_more() -> None:
    held = holding(CALL, FinishReasonPart("length"), UsagePart(1, 2))
    held.retract(Retraction(2))
    assert [call["id"] for call in held.calls] == ["c"]
    assert held.reason == "tool_calls"
    assert held.usage(None) is None


def test_details_are_only_of_a_sole_count() -> None:
    sole = holding(FinishReasonPart("stop"), UsagePart(1, 2, details=DETAILS)).usage(None)
    assert sole is not None
    assert sole.items() >= DETAILS.items()
    both = holding(FinishReasonPart("stop"), UsagePart(1, 2, details=DETAILS), UsagePart(1, 2)).usage(None)
    assert both == {"prompt_tokens": 2, "completion_tokens": 4, "total_tokens": 6}


def test_what_the_run_used_counts_where_nobody_else_does() -> None:
    used = Usage(5, 7, calls=1)
    assert holding().usage(used) == {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}
    counted = holding(UsagePart(1, 1)).usage(used)
    assert counted is not None
    assert counted["total_tokens"] == 2


def test_there_is_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "COMPLETION_PARTS", 2)
    with pytest.raises(RunFailed, match="more than 2"):
        holding(CALL, CALL, CALL)

"""The public surface: these names and no others, each with its promise."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import loom

NAMES = """
    AI App ChatMessage Chunk Client Conflict Context Cursor CursorExpired Damaged ErrorInfo EventSourceResponse
    Fenced FinishReasonPart HandleClosed InvalidInput Keep LimitExceeded LocalProtocolError LogEnded LogError
    LogNotFound LoomError Message ObjectPart OutcomeUnknown OwnedRun Part Progress Publisher ReasoningPart RefusalPart
    RemoteProtocolError Result Retry Run RunCancelled RunError RunFailed RunLost RunRestarted StartOver
    StoreFull TextPart ToolCallPart ToolResultPart ToolSpec Unauthorized Unavailable UnknownProducer Usage
    UsageError UsagePart asgi connect connect_sync error_response open_store per_process sse_events
"""


def test_the_public_names() -> None:
    """Adding one is a promise, taking one away breaks somebody's program: neither happens by the way."""
    assert loom.__all__ == NAMES.split()


@pytest.mark.parametrize("name", NAMES.split())
def test_each_is_there_and_says_what_it_is(name: str) -> None:
    found = getattr(loom, name)
    assert name in dir(loom)
    if inspect.isclass(found) or inspect.isfunction(found):
        assert (found.__doc__ or "").strip()


def test_what_only_some_need_is_imported_when_it_is_used() -> None:
    """A script that follows a run pays for no web framework."""
    heavy = "{name.partition('.')[0] for name in sys.modules} & {'starlette', 'uvicorn', 'httpx2', 'rich', 'cyclopts'}"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys, loom; print({heavy})"], capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"


def test_another_name_is_an_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        loom.nothing  # noqa: B018

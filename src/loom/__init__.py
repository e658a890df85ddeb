"""Loom: write an async generator, consume it with `async for` anywhere. It survives disconnects, restarts and crashes.

Public names, grouped; nothing else is imported here until it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from loom.app import App
from loom.connect import connect, open_store
from loom.engine.declare.context import Context
from loom.engine.declare.options import Retry
from loom.engine.follow.client import Client
from loom.engine.follow.run import OwnedRun, Run
from loom.engine.run.publisher import Publisher
from loom.model.ai import AI
from loom.model.chunk import Chunk, Message, Progress, Result
from loom.model.cursor import Cursor
from loom.model.errors import (
    Conflict,
    CursorExpired,
    Damaged,
    ErrorInfo,
    Fenced,
    HandleClosed,
    InvalidInput,
    LimitExceeded,
    LocalProtocolError,
    LogEnded,
    LogError,
    LogNotFound,
    LoomError,
    OutcomeUnknown,
    RemoteProtocolError,
    RunCancelled,
    RunError,
    RunFailed,
    RunLost,
    RunRestarted,
    StartOver,
    StoreFull,
    Unauthorized,
    Unavailable,
    UnknownProducer,
    UsageError,
)
from loom.model.keep import Keep
from loom.model.parts import (
    ChatMessage,
    FinishReasonPart,
    ObjectPart,
    Part,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    ToolSpec,
    Usage,
    UsagePart,
)

if TYPE_CHECKING:
    from loom.blocking import connect_sync
    from loom.mounted import asgi
    from loom.server.response import EventSourceResponse, error_response
    from loom.wsgi import per_process, sse_events

__version__ = "0.1.0"

__all__ = [
    "AI",
    "App",
    "ChatMessage",
    "Chunk",
    "Client",
    "Conflict",
    "Context",
    "Cursor",
    "CursorExpired",
    "Damaged",
    "ErrorInfo",
    "EventSourceResponse",
    "Fenced",
    "FinishReasonPart",
    "HandleClosed",
    "InvalidInput",
    "Keep",
    "LimitExceeded",
    "LocalProtocolError",
    "LogEnded",
    "LogError",
    "LogNotFound",
    "LoomError",
    "Message",
    "ObjectPart",
    "OutcomeUnknown",
    "OwnedRun",
    "Part",
    "Progress",
    "Publisher",
    "ReasoningPart",
    "RefusalPart",
    "RemoteProtocolError",
    "Result",
    "Retry",
    "Run",
    "RunCancelled",
    "RunError",
    "RunFailed",
    "RunLost",
    "RunRestarted",
    "StartOver",
    "StoreFull",
    "TextPart",
    "ToolCallPart",
    "ToolResultPart",
    "ToolSpec",
    "Unauthorized",
    "Unavailable",
    "UnknownProducer",
    "Usage",
    "UsageError",
    "UsagePart",
    "asgi",
    "connect",
    "connect_sync",
    "error_response",
    "open_store",
    "per_process",
    "sse_events",
]

_LATE = {
    "EventSourceResponse": "loom.server.response",
    "asgi": "loom.mounted",
    "connect_sync": "loom.blocking",
    "error_response": "loom.server.response",
    "per_process": "loom.wsgi",
    "sse_events": "loom.wsgi",
}
"""What only some need, and where it is: threads, and a web framework."""


def __getattr__(name: str) -> Any:
    if name in _LATE:
        return getattr(import_module(_LATE[name]), name)
    raise AttributeError(f"module 'loom' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATE})

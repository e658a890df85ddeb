"""Loom: write an async generator, consume it with `async for` anywhere. It survives disconnects, restarts and crashes.

Public names, grouped; nothing else is imported here until it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loom.app import App
from loom.connect import connect, open_store
from loom.engine.client import Client
from loom.engine.context import Context
from loom.engine.registry import Retry
from loom.engine.run import OwnedRun, Run
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
    StoreFull,
    Unauthorized,
    Unavailable,
    UnknownProducer,
    UsageError,
)
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

if TYPE_CHECKING:
    from loom.portal import connect_sync

__version__ = "0.1.0"

__all__ = [
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
    "Fenced",
    "FinishReasonPart",
    "HandleClosed",
    "InvalidInput",
    "LimitExceeded",
    "LocalProtocolError",
    "LogEnded",
    "LogError",
    "LogNotFound",
    "LoomError",
    "Message",
    "OutcomeUnknown",
    "OwnedRun",
    "Part",
    "Progress",
    "ReasoningPart",
    "RemoteProtocolError",
    "Result",
    "Retry",
    "Run",
    "RunCancelled",
    "RunError",
    "RunFailed",
    "RunLost",
    "RunRestarted",
    "StoreFull",
    "TextPart",
    "ToolCallPart",
    "ToolSpec",
    "Unauthorized",
    "Unavailable",
    "UnknownProducer",
    "UsageError",
    "UsagePart",
    "connect",
    "connect_sync",
    "open_store",
]


def __getattr__(name: str) -> Any:
    if name == "connect_sync":  # its thread machinery is only for those who block
        from loom.portal import connect_sync

        return connect_sync
    raise AttributeError(f"module 'loom' has no attribute {name!r}")

"""What the inbox of a run takes: the same in every store."""

from __future__ import annotations

from loom.model import limits
from loom.model.chunk import CANCEL
from loom.model.errors import LimitExceeded
from loom.wire.json import check_size

__all__ = ["check_room"]


def check_room(message: bytes, sender: str, *, messages: int, size: int) -> None:
    """Raise `LimitExceeded` for a message that is too large, or that an inbox of so many messages and bytes (line
    ends included) has no room for. For the cancel there is always room: there is one of it."""
    check_size(message, limits.MESSAGE_BYTES, "a message")
    if sender == CANCEL:
        return
    if messages >= limits.INBOX_MESSAGES:
        raise LimitExceeded(f"the inbox is full: {messages} messages", retryable=False)
    if size + len(message) + 1 > limits.INBOX_BYTES:
        raise LimitExceeded(
            f"the inbox has no room for {len(message)} bytes: it holds {size} of {limits.INBOX_BYTES}", retryable=False
        )

"""The connection below an answer, as ASGI shows it."""

from __future__ import annotations

import asyncio

import pytest
from starlette.types import Message

from loom.model import limits
from loom.server.http.connection import CONNECTION, cut, wait_gone

pytestmark = pytest.mark.anyio


async def test_a_client_is_there_until_it_has_left() -> None:
    """What still comes of its request says nothing of that."""
    messages: list[Message] = [{"type": "http.request"}, {"type": "http.request"}, {"type": "http.disconnect"}]

    async def receive() -> Message:
        return messages.pop(0)

    await wait_gone(receive)
    assert messages == []


async def test_what_is_cut_is_gone() -> None:
    gone = asyncio.Event()

    async def receive() -> Message:
        await gone.wait()
        return {"type": "http.disconnect"}

    await cut({"type": "http", "extensions": {CONNECTION: {"abort": gone.set}}}, receive)
    assert gone.is_set()


async def test_what_cannot_be_cut_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is what was cut and does not say so, for long."""

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    await cut({"type": "http"}, receive)
    monkeypatch.setattr(limits, "LINGER", 0.01)
    await cut({"type": "http", "extensions": {CONNECTION: {"abort": lambda: None}}}, receive)

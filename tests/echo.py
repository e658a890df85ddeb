"""An actor that a test speaks through."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any, Generic, TypeVar

import loom

__all__ = ["Echo"]

E = TypeVar("E", asyncio.Event, threading.Event)


class Echo(Generic[E]):
    """Says what it is told, so that a test says when, until ``stop``; `gone` is set when it has ended, however."""

    def __init__(self, gone: E) -> None:
        self.app = loom.App()
        self.gone: E = gone

        @self.app.actor
        async def echo(ctx: loom.Context) -> AsyncIterator[Any]:
            try:
                while (message := await ctx.receive()).type != "stop":
                    yield message.data
            finally:
                gone.set()

        self.actor = echo

"""Between the hub and one connection: frames are written to it where they arise, or wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from starlette.types import Send

from loom.model.chunk import Batch, Page

__all__ = ["FrameSink", "SendFailed"]


class SendFailed(Exception):
    """A send failed: the connection is gone."""


class Renderer(Protocol):
    """The part of an audience that a sink uses."""

    @property
    def alone(self) -> bool: ...

    def render(self, batches: tuple[Batch, ...]) -> bytes | None: ...


class FrameSink:
    """One connection, as frames are written to it: at once, if the server below offers that and the connection takes
    them now (`write`, of `loom.server.http.connection`), else in its own time.

    It is an `InlineSink`: while its viewer is alone and caught up, the hub delivers pages here, where they were
    appended. In company the audience writes to it, as a `FrameWriter`. Both know frames, and nothing of HTTP.
    """

    __slots__ = ("_audience", "_send", "_write", "clock", "inline", "sending", "since")

    def __init__(self, audience: Renderer, send: Send, write: Callable[[bytes], bool] | None) -> None:
        self._audience = audience
        self._send = send
        self._write = write
        self.inline = write is not None
        """It can write at once at all."""
        self.clock = asyncio.get_running_loop().time
        self.since = self.clock()
        """When the last write or send began, in the loop's time."""
        self.sending = False
        """A send is waiting for the connection."""

    def deliver(self, page: Page) -> bool:
        """See `InlineSink`."""
        if self.sending or not self._audience.alone:
            return False
        try:
            data = self._audience.render(page.batches)
            return data is not None and self.write(data, self.clock())
        except Exception:  # a fault of ours is not its writer's: the iterator gives the page, and meets it again
            return False

    def write(self, data: bytes, now: float) -> bool:
        """See `FrameWriter`."""
        if self._write is None or not self._write(data):
            return False
        self.since = now
        return True

    async def send(self, data: bytes, *, more: bool = True) -> None:
        """As ASGI has it, waiting while the connection takes nothing. Raises `SendFailed`."""
        self.since = self.clock()
        self.sending = True
        try:
            await self._send({"type": "http.response.body", "body": data, "more_body": more})
        except (OSError, RuntimeError) as error:  # so servers say it, and loops of a transport that is closed
            raise SendFailed from error
        finally:
            self.sending = False

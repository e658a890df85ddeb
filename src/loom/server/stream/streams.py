"""What one server's lasting connections share: event streams and long polls, which end together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import cast

import msgspec

from loom.model import limits
from loom.model.errors import LoomError, Unavailable
from loom.model.ports import Transport
from loom.tasks import TaskSet

from .audience import Audience, Frames, Key

__all__ = ["Streams", "Times", "renew"]

STOP_LOOK = 1.0
"""How often an event stream in somebody else's app looks whether its server was told to stop: 60 us a look, the turn of
the loop for it included."""

log = logging.getLogger("loom.server")


class Times(msgspec.Struct, frozen=True, kw_only=True):
    """The server's patience, in seconds."""

    heartbeat: float = limits.HEARTBEAT
    stalled: float = limits.STALLED_VIEWER
    long_poll: float = limits.LONG_POLL
    leave_grace: float = limits.LEAVE_GRACE
    first_output: float = limits.FIRST_OUTPUT


class Streams:
    """The connections of one server that last, which end together, and what they share.

    `stops` says whether the server around them was told to stop, where nobody calls `end` (see `hosts.told_to_stop`).
    """

    def __init__(self, transport: Transport, times: Times, stops: Callable[[], bool] | None = None) -> None:
        self.transport = transport
        self.times = times
        self.look_every = times.stalled if stops is None else min(times.stalled, STOP_LOOK)
        self._stops = stops
        self.closing = False
        self.open = 0
        """Event streams and long polls."""
        self._tasks: set[asyncio.Task[object]] = set()
        self._audiences: dict[Key, Audience] = {}
        self._followers = TaskSet()

    def end(self) -> None:
        """End them all, also those to come: the server stops. Viewers resume from their cursors elsewhere."""
        self.closing = True
        for task in self._tasks:
            task.cancel()
        for audience in self._audiences.values():
            audience.end()

    def look(self) -> None:
        """End them all if the server stops."""
        if not self.closing and self._stops is not None and self._stops():
            self.end()

    async def wait_ended(self) -> None:
        """Until nothing of them is left, but what each connection's own request waits for."""
        await self._followers.wait_all()

    def enter(self) -> None:
        """The task that calls is now doing something for a connection: `end` cancels it, or has done so."""
        task = asyncio.current_task()
        assert task is not None
        if self.closing:
            raise asyncio.CancelledError
        self._tasks.add(task)

    def leave(self) -> None:
        """It no longer is. Idempotent."""
        self._tasks.discard(cast("asyncio.Task[object]", asyncio.current_task()))

    def check_open(self) -> None:
        """Raise `Unavailable` once the server stops."""
        self.look()
        if self.closing:
            raise Unavailable("the server is stopping")

    def audience(self, key: Key, encoder: Frames | None = None) -> Audience:
        """What the viewers of one run share; to be left by each. An encoder remembers what it said: it has its own."""
        if encoder is not None:
            alone = Audience(self.transport, key, self._followers, lambda: None, encoder)
            alone.enter()
            return alone
        audience = self._audiences.get(key)
        if audience is None:
            audience = self._audiences[key] = Audience(
                self.transport, key, self._followers, lambda: self._audiences.pop(key)
            )
        audience.enter()
        return audience


async def renew(streams: Streams, run: str) -> None:
    """A viewer is there as long as this runs: its run's owner lives."""
    while True:
        try:
            await streams.transport.heartbeat(run)
        except LoomError as error:  # out of reach for now; if for long, the run is cancelled, as it should be
            log.debug("renewing run %s: %s", run, error)
        await asyncio.sleep(streams.times.leave_grace / limits.RENEW_FRACTION)

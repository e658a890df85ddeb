"""Those outside: clients who start and cancel runs, viewers who follow them. They live on, whatever happens inside."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from contextlib import aclosing
from typing import Any, NamedTuple

from loom.engine.follow.client import Client
from loom.model.chunk import Page
from loom.model.cursor import Cursor
from loom.model.errors import HandleClosed, LoomError, RemoteProtocolError

from .history import Acked, Logged, Seen
from .houses import Gateways
from .world import World

__all__ = ["Start", "Viewer", "cancel", "start"]

_ANSWER = 12.0
"""Seconds that a client waits for an answer before it asks again, perhaps another gateway."""

_STAY = 20.0
"""Seconds after which a viewer that hangs up and comes again (a reload, a change of networks) does so at the latest."""

_FAITHFUL = 0.25
"""The share of connections that stay until they end: who always came again would not notice that he is told nothing."""


class Start(NamedTuple):
    """A run to be started: its id, what, and with which options of `Client.start`."""

    run: str
    actor: str
    input: Any
    options: dict[str, Any]


async def _until_done(
    world: World, gateways: Gateways, what: str, run: str, call: Callable[[Client], Any]
) -> LoomError | None:
    """Ask until there is an answer: None for success, else the error that no repetition helps against."""
    for number in itertools.count(1):
        step = f"client {what} {run}#{number}"
        draws = world.draws(step)
        try:
            await gateways.ask(draws[0], call, timeout=_ANSWER, name=step)
        except HandleClosed:
            await asyncio.sleep(draws[1])  # that gateway is leaving
        except LoomError as error:
            if not error.retryable and error.code != "outcome_unknown":
                return error
            await asyncio.sleep(draws[1])
        else:
            world.history.append(Acked(world.now, what, run))
            return None
    raise AssertionError


async def start(world: World, gateways: Gateways, wanted: Start) -> bool:
    """Start a run, once, however often that has to be asked for; False if it is refused for good."""
    arguments = () if wanted.input is None else (wanted.input,)

    async def call(client: Client) -> None:
        await client.start(wanted.actor, *arguments, id=wanted.run, **wanted.options)

    error = await _until_done(world, gateways, "start", wanted.run, call)
    if error is not None:
        world.history.append(Logged(world.now, f"run {wanted.run} could not be started: {error!r}"))
    return error is None


async def cancel(world: World, gateways: Gateways, run: str) -> None:
    """Cancel a run, until that is acknowledged."""
    error = await _until_done(world, gateways, "cancel", run, lambda client: client.run(run).cancel())
    if error is not None:
        world.history.append(Logged(world.now, f"run {run} could not be cancelled: {error!r}"))


class Viewer:
    """Follows one run to its end: by any gateway, again and again, from the cursor that it has."""

    def __init__(self, world: World, gateways: Gateways, name: str, run: str) -> None:
        self._world = world
        self._gateways = gateways
        self._name = name
        self._run = run
        self._cursor: Cursor | None = None
        self._connection = 0
        self.ended = False

    async def follow(self) -> None:
        """Until the end was seen, or following is refused for good (which is written down)."""
        while not self.ended:
            self._connection += 1
            step = f"{self._name} connection#{self._connection}"
            draws = self._world.draws(step)
            stay = None if draws[3] < _FAITHFUL else _STAY * draws[1] ** 2 + 0.1
            try:
                await self._gateways.ask(draws[0], self._connect(self._connection), timeout=stay, name=step)
            except HandleClosed:
                await asyncio.sleep(draws[2])
            except LoomError as error:
                if not error.retryable and error.code != "outcome_unknown":
                    self._world.history.append(Logged(self._world.now, f"{self._name} was refused: {error!r}"))
                    return
                await asyncio.sleep(draws[2] / 4)
            else:
                if not self.ended:
                    self._world.history.append(Logged(self._world.now, f"{self._name}: pages stopped before the end"))
                    return

    def _connect(self, connection: int) -> Callable[[Client], Any]:
        after = self._cursor

        async def serve(client: Client) -> None:
            async with aclosing(client.transport.follow(self._run, after)) as pages:
                async for page in pages:
                    if connection != self._connection:
                        return  # the viewer has hung up
                    if not self._take(page):
                        raise RemoteProtocolError(f"was given a page that leads from {self._cursor} to {page.cursor}")

        return serve

    def _take(self, page: Page) -> bool:
        """Whether it leads on: who follows one that does not could go round for ever."""
        self._world.history.append(Seen(self._world.now, self._name, self._run, page))
        if page.cursor is None or (self._cursor is not None and page.cursor.seq <= self._cursor.seq):
            return False
        self._cursor = page.cursor
        self.ended = page.ended
        return True

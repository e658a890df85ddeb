"""Where processes live one after the other: workers and gateways, and what befalls them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol, TypeVar

from loom.app import App
from loom.engine.follow.client import Client
from loom.engine.follow.transport import StoreTransport
from loom.engine.run.worker import Worker
from loom.model.errors import Unavailable
from loom.tasks import cancel_and_wait

from .link import Link
from .loop import Process, outside
from .world import World

__all__ = ["Gateways", "House", "Life", "gateway_of", "worker_of"]

T = TypeVar("T")

_TURNS = 60
"""A fate that is due strikes within so many turns of its process: at any of the awaits that are under way then."""

_IDLE = 2.0
"""Seconds after which it strikes a process that has not had so many turns."""

_BURIALS = 100
"""Rounds of cancelling what a dead process left; what is not gone then refuses to be cancelled."""


class Life:
    """One process, from its start to its death."""

    def __init__(self, world: World, name: str) -> None:
        self.process = Process(world.loop, name)
        self.link = Link(world, self.process)
        self.told = asyncio.Event()
        """To stop, as by SIGTERM."""
        self.over = asyncio.Event()
        """It was killed, or has stopped."""
        self.client: Client | None = None
        """Of a gateway that is up."""


class Main(Protocol):
    """What a process does, from its start until it is told to stop."""

    def __call__(self, life: Life) -> Coroutine[Any, Any, None]: ...


def worker_of(app: App, lease: float) -> Main:
    """A worker process."""

    async def main(life: Life) -> None:
        async with (
            app.resources() as resources,
            Worker(life.link.store, app.registry, name=life.process.name, lease=lease, resources=resources),
        ):
            await life.told.wait()

    return main


def gateway_of(app: App) -> Main:
    """A process that serves clients and viewers."""

    async def main(life: Life) -> None:
        async with Client(StoreTransport(life.link.store, app.registry)) as client:
            life.client = client
            try:
                await life.told.wait()
            finally:
                life.client = None

    return main


class House:
    """Keeps one process running: what dies or leaves is followed by another."""

    def __init__(self, world: World, name: str, main: Main, lease: float) -> None:
        self._world = world
        self._name = name
        self._main = main
        self._lease = lease
        self._lives: list[Life] = []
        self.life = self._begin()

    def _begin(self) -> Life:
        life = Life(self._world, f"{self._name}.{len(self._lives) + 1}")
        self._lives.append(life)
        self.life = life
        task = life.process.spawn(self._main(life), f"main of {life.process.name}")
        task.add_done_callback(lambda _: life.over.set())
        return life

    async def keep(self) -> None:
        """For ever: another process after each that is over."""
        while True:
            life = self.life
            await life.over.wait()
            wait = self._world.draws(f"{life.process.name} next")[0] * 1.5 * self._lease
            if not self._world.calm.is_set():
                await asyncio.sleep(wait)
            self._begin()

    async def haunt(self) -> None:
        """Let befall the process what the seed wants, until there is calm."""
        faults = self._world.faults
        rates = {"kill": faults.kill, "pause": faults.pause, "cut": faults.cut, "leave": faults.leave}
        total = sum(rates.values())
        if total == 0:
            return
        for number in itertools.count(1):
            step = f"{self._name} fate#{number}"
            draws = self._world.draws(step)
            await asyncio.sleep(self._world.wait_of(total, draws[0]))
            edges = list(itertools.accumulate(rates.values()))
            kind = next(kind for kind, edge in zip(rates, edges, strict=True) if draws[1] * total <= edge)
            await self._befall(step, kind, int(draws[2] * _TURNS), draws[3] * 3 * self._lease)

    async def _befall(self, step: str, kind: str, turns: int, seconds: float) -> None:
        """`kind`, at the process's `turns`-th turn from now; then let it go on after `seconds`."""
        life = self.life
        struck = asyncio.Event()

        def strike() -> None:
            if not struck.is_set():
                struck.set()
                if self._world.strikes(step, kind, life.process.name):
                    self._strike(life, kind)

        life.process.meet(strike, turns)
        try:
            async with asyncio.timeout(_IDLE):
                await struck.wait()
        except TimeoutError:
            strike()
        if kind in ("pause", "cut"):
            await asyncio.sleep(seconds)
            self._repair(life)

    def _strike(self, life: Life, kind: str) -> None:
        if kind == "kill":
            life.process.kill()
            life.link.drop()
            life.client = None
            life.over.set()
        elif kind == "pause":
            life.process.stop()
        elif kind == "cut":
            life.link.cut()
        else:
            life.told.set()

    @staticmethod
    def _repair(life: Life) -> None:
        life.process.go_on()
        life.link.heal()

    def calm(self) -> None:
        """Whatever is stopped goes on, whatever is cut is whole again."""
        self._repair(self.life)

    async def bury(self) -> list[str]:
        """End all its processes, when the history is over; the names of tasks that cannot be ended."""
        left: list[str] = []
        for life in self._lives:
            life.process.bury()
            for _ in range(_BURIALS):
                tasks = self._world.loop.tasks_of(life.process)
                if not tasks:
                    break
                for task in tasks:
                    task.cancel()
                await asyncio.sleep(1.0)
            left += [task.get_name() for task in self._world.loop.tasks_of(life.process)]
            await life.link.aclose()
        return left


class Gateways:
    """Several houses of gateways, as those who ask see them: one of them, and never sure of an answer."""

    def __init__(self, world: World, houses: list[House]) -> None:
        self._world = world
        self._houses = houses

    def any(self, draw: float) -> Life:
        """Some gateway."""
        return self._houses[int(draw * len(self._houses))].life

    async def ask(self, draw: float, call: Callable[[Client], Awaitable[T]], *, timeout: float | None, name: str) -> T:
        """What some gateway gives for `call`. Raises what the call raises, and `Unavailable` when it does not answer
        within `timeout` seconds (None: whenever): then whether it was made is not known."""
        life = self.any(draw)
        client = life.client
        if client is None:
            await asyncio.sleep(0.05)
            raise Unavailable("connection refused")

        async def made() -> T:
            return await call(client)

        task = life.process.spawn(made(), name)
        over = outside(life.over.wait(), f"{name}: reset")
        try:
            await asyncio.wait({task, over}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await cancel_and_wait(over)
            if not task.done():
                task.cancel()
        if not task.done() or task.cancelled():
            raise Unavailable("no answer")
        result: T = task.result()
        return result

"""What stands between a process and the store: a connection that loses, delays and overtakes."""

from __future__ import annotations

import asyncio
import contextvars
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, cast

from loom.model.chunk import Batch
from loom.model.errors import OutcomeUnknown, Unavailable
from loom.model.ports import Commit, Durability, Notice, Notify, Store, Unwatch
from loom.tasks import TaskSet

from .history import Call, Logged
from .loop import Process
from .world import World

__all__ = ["Link"]

_READS = frozenset({"get", "list_runs", "info", "read", "positions", "claim", "list_entries", "list_workers"})
"""What changes nothing that the caller would have to know of: a lost reply is only `Unavailable`."""

_CALM = 0.1
"""The longest way in seconds once nothing goes wrong any more."""

Method = Callable[..., Awaitable[Any]]


class _Flight:
    """A call that is under way."""

    def __init__(self, reply: asyncio.Future[Any]) -> None:
        self.reply = reply
        self.at_store = False
        self.serving: asyncio.Task[Any] | None = None

    def give_up(self) -> None:
        """Nobody waits for the reply any more: a wait in the store ends, what is on its way there still arrives."""
        if self.at_store and self.serving is not None:
            self.serving.cancel()

    def answer(self, result: Any) -> None:
        if not self.reply.done():
            self.reply.set_result(result)

    def fail(self, error: BaseException) -> None:
        if not self.reply.done():
            self.reply.set_exception(error)


class _Port:
    """One port of the store, by way of the connection."""

    def __init__(self, link: Link, port: str) -> None:
        self._link = link
        self._port = port

    def __getattr__(self, name: str) -> Any:
        call = self.__dict__[name] = self._link.call(name, getattr(getattr(self._link.at_store, self._port), name))
        return call


class _Logs(_Port):
    def append_nowait(self, log: str, batch: Batch, commit: Commit | None = None) -> bool:
        """The store is elsewhere: everything needs waiting."""
        return False

    def watch(self, log: str, notify: Notify) -> Unwatch:
        return self._link.watch(log, notify)


class Link:
    """One process's way to the store. It has every call that the store has; `store` is it, as the engine sees it.

    A call is carried out in no process: the caller may be stopped or killed meanwhile, and the store does it.
    """

    def __init__(self, world: World, process: Process) -> None:
        self._world = world
        self._process = process
        self._down = False
        self._calls: Counter[str] = Counter()
        self._flights: dict[_Flight, None] = {}
        self._serving = TaskSet()
        self._watchers: dict[int, Callable[[Notice], None]] = {}
        self._watches = 0
        self.logs = _Logs(self, "logs")
        self.runs = _Port(self, "runs")
        self.queue = _Port(self, "queue")
        self.workers = _Port(self, "workers")
        self.sweep = self.call("sweep", world.store.sweep)

    @property
    def store(self) -> Store:
        return cast(Store, self)

    @property
    def at_store(self) -> Store:
        """The store itself, without the connection."""
        return self._world.store

    @property
    def durability(self) -> Durability:
        return self._world.store.durability

    @property
    def waits(self) -> bool:
        return True

    def call(self, name: str, method: Method) -> Method:
        """A method of the store, by way of the connection."""

        async def call(*args: Any, **options: Any) -> Any:
            return await self._call(name, method, args, options)

        return call

    # --- outages -----------------------------------------------------------------------------------------------------

    def cut(self) -> None:
        """From now on nothing comes through."""
        self._down = True

    def heal(self) -> None:
        """It comes through again. Whoever watches is told to look: he may have missed something."""
        self._down = False
        for heard in list(self._watchers.values()):
            heard(Notice())
            heard(Notice(marks=True))

    def drop(self) -> None:
        """The process is dead: what it waits for in the store, it waits for no more."""
        self._watchers.clear()
        for flight in list(self._flights):
            flight.give_up()

    async def aclose(self) -> None:
        await self._serving.aclose()

    # --- calls -------------------------------------------------------------------------------------------------------

    async def _call(self, name: str, method: Method, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        if self._process.buried:
            raise Unavailable("the history is over")
        self._calls[name] += 1
        step = f"{self._process.name} {name}#{self._calls[name]}"
        flight = _Flight(self._world.loop.create_future())
        self._flights[flight] = None
        flight.serving = contextvars.Context().run(
            self._serving.spawn, self._serve(flight, step, name, method, args, options), f"loom-serve {step}"
        )
        try:
            return await flight.reply
        finally:
            self._flights.pop(flight, None)
            flight.give_up()

    async def _serve(
        self, flight: _Flight, step: str, name: str, method: Method, args: tuple[Any, ...], options: dict[str, Any]
    ) -> None:
        world = self._world
        draws = world.draws(step)
        await asyncio.sleep(self._way(draws[0]))
        if self._down or (draws[2] < world.faults.refused and self._strikes(step, "refused")):
            flight.fail(Unavailable("refused by the simulation"))
            return
        call = await self._carry_out(flight, step, name, method, args, options)
        world.history += call.each
        if self._down or (draws[3] < world.faults.lost_reply and self._strikes(step, "lost_reply")):
            await asyncio.sleep(world.faults.patience if draws[4] < 0.5 else self._way(draws[1]))
            lost = Unavailable if name in _READS else OutcomeUnknown
            flight.fail(lost("the reply was lost by the simulation"))
            return
        await asyncio.sleep(self._way(draws[1]))
        if call.error is None:
            flight.answer(call.result)
        else:
            flight.fail(call.error)

    async def _carry_out(
        self, flight: _Flight, step: str, name: str, method: Method, args: tuple[Any, ...], options: dict[str, Any]
    ) -> Call:
        world = self._world
        began, first = world.now, len(world.history)
        result: Any = None
        failure: Exception | None = None
        flight.at_store = True
        try:
            result = await method(*args, **options)
        except Exception as error:  # the caller's, as if there were no link
            failure = error
        finally:
            flight.at_store = False
        last = len(world.history)
        return Call(world.now, began, first, last, step, self._process.name, name, args, options, result, failure)

    def _strikes(self, step: str, kind: str) -> bool:
        return self._world.strikes(step, kind, self._process.name)

    def _way(self, draw: float) -> float:
        """Seconds under way: most are short, some are long. In calm none is."""
        longest = self._world.faults.delay
        return float((min(longest, _CALM) if self._world.calm.is_set() else longest) * draw**4)

    # --- notices -----------------------------------------------------------------------------------------------------

    def watch(self, log: str, notify: Notify) -> Unwatch:
        """Notices come by the same connection: late, twice, bare, or only as a poll."""
        self._watches += 1
        number = self._watches
        count = 0

        def tell(notice: Notice) -> None:
            if number not in self._watchers:
                return
            try:
                notify(notice)
            except Exception as error:  # `notify` must not raise: the checker is told
                self._world.history.append(Logged(self._world.now, f"a watcher of {log} raised {error!r}"))

        def heard(notice: Notice) -> None:
            nonlocal count
            count += 1
            step = f"{self._process.name} watch#{number} {log} notice#{count}"
            for after, told in self._delivered(step, notice):
                self._world.loop.call_later(after, tell, told, context=self._process.context)

        self._watchers[number] = heard
        unwatch = self._world.store.logs.watch(log, heard)

        def unwatch_both() -> None:
            unwatch()
            self._watchers.pop(number, None)

        return unwatch_both

    def _delivered(self, step: str, notice: Notice) -> list[tuple[float, Notice]]:
        """What arrives of a notice: (after so many seconds, this)."""
        draws = self._world.draws(step)
        share = self._world.faults.lost_notice
        bare = Notice(marks=notice.marks)
        if self._down:
            return []  # whoever watches is told when it comes through again
        if draws[0] < share and self._strikes(step, "lost_notice"):
            return [(self._world.faults.poll * draws[1], bare)]
        told = [(self._way(draws[2]), notice)]
        if draws[3] < share and self._strikes(step, "odd_notice"):
            told = [(self._way(draws[2]), bare if draws[4] < 0.5 else notice), (self._way(draws[5]) * 5, notice)]
        return told

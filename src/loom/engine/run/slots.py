"""The slots of a worker: each run that it drives holds one, and gives it back while it waits.

A slot counts in the worker's own `concurrency` and in its actor's. A run that goes on takes it again, before any run
that is claimed. One that is stopped does not wait for it: it only winds up.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

from loom.model import limits
from loom.tasks import spawn, wait_out

__all__ = ["Slot", "Slots", "ThreadSlot"]

THREADS = 32
"""Sync producers that one worker runs at a time: each needs a thread of its own."""

JOINS = 1.0
"""Seconds after which a task that goes on, while others of its run wait, counts as one that waits for those: it may sit
at a queue or a lock that only they bring further, and their children in need of its slot."""

T = TypeVar("T")


class Slots:
    """The slots of one worker. `limit`: how many of them an actor may hold at a time; None: as many as there are."""

    def __init__(self, total: int, limit: Callable[[str], int | None] = lambda actor: None) -> None:
        self._free = total
        self._limit = limit
        self._held: Counter[str] = Counter()
        self._waiting: Counter[str] = Counter()
        self._returning: dict[Slot, asyncio.Future[None]] = {}
        """Runs that want their slot again, in the order in which they asked."""
        self._reserved = False
        self._freed = asyncio.Event()
        self.threads = asyncio.Semaphore(min(total, THREADS))
        self.waiting = 0
        """Runs that have given their slot back."""
        self.changed = asyncio.Event()
        """A claim that is under way is to be asked for anew: `full` is another one, or its slot is needed."""

    async def reserve(self) -> None:
        """Wait for a slot for a claim; one claim at a time. `begin` gives it to a run, `cancel` gives it back."""
        while self._free <= 0:
            self._freed.clear()
            await self._freed.wait()
        self._free -= 1
        self._reserved = True

    def cancel(self) -> None:
        """Give back what is reserved, if it is."""
        if self._reserved:
            self._reserved = False
            self._free += 1
            self._hand_out()

    def begin(self, actor: str) -> Slot:
        """The reserved slot, as that of a run. One that is not reserved is one more."""
        if not self._reserved:
            self._free -= 1
        self._reserved = False
        self._held[actor] += 1
        return Slot(self, actor)

    @property
    def full(self) -> tuple[str, ...]:
        """The actors of which no run may be claimed: those that hold as many slots as they may, and, once
        `limits.WAITING` runs wait, theirs: what they wait for can still be claimed."""
        full = dict.fromkeys(actor for actor in self._held if self.is_full(actor))
        if self.waiting >= limits.WAITING:
            full.update(dict.fromkeys(self._waiting))
        return tuple(full)

    def is_full(self, actor: str) -> bool:
        """True if the actor holds as many slots as it may."""
        most = self._limit(actor)
        return most is not None and self._held[actor] >= most

    def release(self, slot: Slot) -> None:
        """Its run is over."""
        if slot.given_back:
            self._take(slot)
        self._free_one(slot.actor)

    def give_back(self, slot: Slot) -> None:
        """Its run waits."""
        slot.given_back = True
        self.waiting += 1
        self._waiting[slot.actor] += 1
        self._free_one(slot.actor)

    def take_if_free(self, slot: Slot) -> bool:
        """Take a slot for a run that goes on; False if there is none now."""
        free = self._may_take(slot)
        if free:
            self._take(slot)
        return free

    async def take(self, slot: Slot) -> None:
        """Wait for a slot for a run that goes on."""
        if self.take_if_free(slot):
            return
        taken = self._returning.get(slot)
        if taken is None:
            taken = self._returning[slot] = asyncio.get_running_loop().create_future()
            if self._reserved and not self.is_full(slot.actor):  # it needs the slot with which a claim waits
                self.changed.set()
        await asyncio.shield(taken)

    def take_at_once(self, slot: Slot) -> None:
        """Take a slot, also one more than there are."""
        self._take(slot)

    def _may_take(self, slot: Slot) -> bool:
        return self._free > 0 and not self.is_full(slot.actor)

    def _take(self, slot: Slot) -> None:
        slot.given_back = False
        self._free -= 1
        self._held[slot.actor] += 1
        self._waiting[slot.actor] -= 1
        if not self._waiting[slot.actor]:
            del self._waiting[slot.actor]
        if self.waiting == limits.WAITING or self.is_full(slot.actor):
            self.changed.set()
        self.waiting -= 1
        taken = self._returning.pop(slot, None)
        if taken is not None:
            taken.set_result(None)

    def _free_one(self, actor: str) -> None:
        if self.is_full(actor):
            self.changed.set()
        self._held[actor] -= 1
        if not self._held[actor]:
            del self._held[actor]
        self._free += 1
        self._hand_out()

    def _hand_out(self) -> None:
        """Runs that go on come first; what they leave is for a claim."""
        for slot in [*self._returning]:
            if self._free <= 0:
                break
            self.take_if_free(slot)
        if self._free > 0:
            self._freed.set()


class ThreadSlot:
    """One of the threads that a worker's sync producers share, held while this is entered, or until `release`. It is
    given back with the run's slot: a thread that waits blocks nobody."""

    def __init__(self, threads: asyncio.Semaphore) -> None:
        self._threads = threads
        self._held = False
        self.given_back = False

    async def __aenter__(self) -> None:
        await self._threads.acquire()
        self._held = True

    async def __aexit__(self, *exc: object) -> None:
        self.release()

    def release(self) -> None:
        """Gives it back. Idempotent."""
        self.given_back = False
        if self._held:
            self._held = False
            self._threads.release()

    def give_back(self) -> None:
        """Its run waits."""
        if self._held:
            self.release()
            self.given_back = True

    async def take(self) -> None:
        """Wait for a thread again, if it was given back."""
        if self.given_back:
            await self._threads.acquire()
            self.given_back, self._held = False, True


class _Tasks:
    """The tasks of one attempt, as far as they count for the slot of its run."""

    def __init__(self) -> None:
        self.main: asyncio.Task[Any] | None = None
        self.waits = 0
        self.active: dict[asyncio.Task[Any], float] = {}
        """Those that work, the producer's own and those that waited for a run and go on: since when."""
        self.watched: set[asyncio.Task[Any]] = set()
        """Tasks whose end is looked out for."""


class Slot:
    """The slot of one run. Its run waits while its producer's own task does, in `wait`, and while none of its other
    tasks goes on that waited `anywhere`: for `JOINS` seconds, while others still wait."""

    def __init__(self, slots: Slots, actor: str) -> None:
        self.actor = actor
        self.thread = ThreadSlot(slots.threads)
        self.given_back = False
        self._slots = slots
        self._tasks = _Tasks()
        self._begun = False
        self._stopped = False
        self._taking: asyncio.Task[None] | None = None
        self._joins: asyncio.TimerHandle | None = None

    def begin(self, main: asyncio.Task[Any] | None) -> None:
        """`main` is the producer's own task from now on; of one in a thread, each call that this makes."""
        self._begun = True
        self._tasks.main = main
        self._tasks.active = {} if main is None else {main: asyncio.get_running_loop().time()}
        self._look()

    async def wait(self, blocking: Coroutine[Any, Any, T], *, anywhere: bool = False) -> T:
        """Await what blocks, the slot being given back, and take it again before this returns or raises, be it by a
        cancel. In another task than the producer's own the slot is kept, unless `anywhere`: one that only listens must
        not give away the slot of a producer that works."""
        task, tasks = asyncio.current_task(), self._tasks
        assert task is not None
        if self._stopped or not self._begun or not (anywhere or task is tasks.main):
            return await blocking
        self._leave(tasks, task)
        try:
            return await blocking
        finally:
            await self._enter(tasks, task)

    async def wait_for_run(self, blocking: Coroutine[Any, Any, T]) -> T:
        """`wait`, anywhere, for what another run may have to do. A run that waits for others mostly does so for several
        at once, in tasks that it joins."""
        return await self.wait(blocking, anywhere=True)

    async def sleep(self, seconds: float) -> None:
        if seconds > 0:
            await self.wait(asyncio.sleep(seconds))
        else:
            await asyncio.sleep(0)

    def stop(self) -> None:
        """Its run is stopped: it has its slot at once, and keeps it."""
        self._stopped = True
        self._take_at_once()

    def settle(self) -> None:
        """The attempt is over. What is left of its tasks goes on at once, and counts no more."""
        self._begun = False
        self._tasks = _Tasks()
        self._take_at_once()

    def release(self) -> None:
        """Its run is over."""
        self._stopped = True
        self._look()
        self._slots.release(self)

    def _take_at_once(self) -> None:
        if self.given_back:
            self._slots.take_at_once(self)
        if self._taking is not None:
            self._taking.cancel()
        self._look()

    def _leave(self, tasks: _Tasks, task: asyncio.Task[Any]) -> None:
        tasks.waits += 1
        tasks.active.pop(task, None)
        if tasks.main is not None:
            tasks.active.pop(tasks.main, None)  # whether it joins the task that waits, or works meanwhile, is not known
        self._look()

    async def _enter(self, tasks: _Tasks, task: asyncio.Task[Any]) -> None:
        tasks.waits -= 1
        try:
            while tasks is self._tasks and self.given_back and not self._take_if_free():
                await self._take()
        finally:
            tasks.active[task] = asyncio.get_running_loop().time()
            if task is not tasks.main and task not in tasks.watched:
                tasks.watched.add(task)
                task.add_done_callback(partial(self._ended, tasks))
            self._look()

    def _ended(self, tasks: _Tasks, task: asyncio.Task[Any]) -> None:
        tasks.watched.discard(task)
        tasks.active.pop(task, None)
        self._look()

    def _look(self) -> None:
        """Give the slot back where all wait. Where only some do, the others have `JOINS` seconds to work."""
        tasks, taking = self._tasks, self._taking is not None and not self._taking.done()
        waits = tasks.waits > 0 and self._begun and not (self._stopped or self.given_back or taking)
        if waits and not tasks.active:
            self.thread.give_back()
            self._slots.give_back(self)
        if self._joins is None and waits and tasks.active:
            due = min(tasks.active.values()) + JOINS
            self._joins = asyncio.get_running_loop().call_at(due, self._assume_joined)
        elif self._joins is not None and not (waits and tasks.active):
            self._joins.cancel()
            self._joins = None

    def _assume_joined(self) -> None:
        """What has worked for so long may wait for those that wait, and they for this slot."""
        self._joins = None
        now = asyncio.get_running_loop().time()
        active = self._tasks.active
        for task in [task for task, since in active.items() if since + JOINS <= now]:
            del active[task]
        self._look()

    def _take_if_free(self) -> bool:
        return not self.thread.given_back and self._slots.take_if_free(self)

    async def _take(self) -> None:
        """Shared by those that go on at once. Waited for through a cancel: nothing goes on without the slot."""
        if self._taking is None or self._taking.done():
            self._taking = spawn(self._take_both(), f"loom-slot {self.actor}")
        await wait_out(self._taking)

    async def _take_both(self) -> None:
        await self._slots.take(self)
        await self.thread.take()

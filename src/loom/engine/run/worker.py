"""The worker: claims runs, drives them, renews its leases, sweeps, tells of itself, drains on request.

Leases only give liveness; the epoch in the store gives safety. A worker that cannot renew stops its producers at the
end of the lease and writes nothing after.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
import uuid
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from functools import partial
from typing import NamedTuple, Self

from loom.backoff import REPEATABLE, Backoff
from loom.engine.declare.options import check_worker
from loom.engine.declare.registry import Registry
from loom.model import limits
from loom.model.errors import LoomError
from loom.model.ports import Store
from loom.model.run import Claim, WorkerInfo
from loom.model.text import escaped
from loom.tasks import TaskSet, cancel_and_wait, spawn, wait_out

from .attempt import Ending, Resources, Stop
from .runner import Runner
from .slots import Slot, Slots
from .strangers import Strangers
from .trouble import Trouble
from .watchman import Watchman

__all__ = ["Drained", "Worker"]

RENEWED_AT_ONCE = 100
"""Claims that a worker renews by one call: half a millisecond of its loop and of a server's, in which no run speaks."""

LOOP_LAG = 1.0
"""A worker whose event loop stood still for longer says so: something in it blocks."""

CLAIM_WAIT = 5.0
"""How long one claim call waits for a run before the worker looks around."""

ATTEND_EVERY = 5.0
"""A worker tells of itself at least this often, and hears so soon that it was asked to drain."""

_log = logging.getLogger("loom.worker")


class _Held:
    """A claim that this worker drives."""

    def __init__(self, claim: Claim, runner: Runner, task: asyncio.Task[Ending]) -> None:
        self.claim = claim
        self.runner = runner
        self.task = task
        self.renewed = time.monotonic()

    @property
    def driven(self) -> bool:
        """Whether its producer was neither stopped so nor has ended."""
        return not self.task.done() and not self.task.cancelling()

    def give_up(self, why: str) -> None:
        """Stop the producer, once; nothing more is written."""
        if self.driven:
            _log.warning("run %s: %s", self.claim.run, why)
            self.task.cancel()


class Drained(NamedTuple):
    """What became of the runs that a worker drove when it was told to stop, by id."""

    finished: tuple[str, ...]
    handed_over: tuple[str, ...]
    lost: tuple[str, ...]
    """Ended with `run_lost`."""


def _drained(held: Iterable[_Held]) -> Drained:
    endings: dict[Ending, list[str]] = {ending: [] for ending in Ending}
    lost: list[str] = []
    for one in held:
        broken = one.task.cancelled() or one.task.exception() is not None
        ending = Ending.GIVEN_UP if broken else one.task.result()
        (lost if one.runner.lost else endings[ending]).append(one.claim.run)
    return Drained(tuple(endings[Ending.ENDED]), tuple(endings[Ending.RELEASED]), tuple(lost))


class Worker:
    """Drives up to `concurrency` runs at a time, and of each actor no more than that declares; those that wait are not
    counted. An async context manager: entering starts it, leaving drains it. It also drains when asked to by
    `WorkerRegistry.request_drain`.

    `queues`: those that it serves (default: `Registry.queues`, as they are at each claim). `lease`: seconds after which
    another worker takes over when this one is killed. `drain`: seconds that running producers get on shutdown. `alone`:
    no other worker can ever be on this store, and a run that starts one in a queue not served here is refused.
    """

    def __init__(
        self,
        store: Store,
        registry: Registry,
        *,
        name: str | None = None,
        queues: Sequence[str] | None = None,
        concurrency: int = limits.CONCURRENCY,
        lease: float = limits.LEASE,
        drain: float = limits.DRAIN,
        resources: Resources | None = None,
        alone: bool = False,
    ) -> None:
        check_worker(queues, concurrency, lease, drain)
        self.name = name or f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._trouble = Trouble(_log, f"worker {self.name}")
        self._store = store
        self._registry = registry
        self._strangers = Strangers(store.workers, registry, self.name)
        self._given_queues = None if queues is None else tuple(queues)
        self._lease = lease
        self._drain_time = drain
        self._resources = resources or Resources()
        self._concurrency = concurrency
        self._slots = Slots(concurrency, self._limit)
        connect = self._resources.clients
        served = (lambda: self.queues) if alone else None
        self._clients = None if connect is None else connect(store, registry, served)
        # By claim: one that lapsed may still be winding up here while the same run is driven anew.
        self._held: dict[tuple[str, int], _Held] = {}
        self._tasks = TaskSet()
        self._renewals = TaskSet()
        self._takers: list[asyncio.Task[None]] = []
        self._renewer: asyncio.Task[None] | None = None
        self._teller: asyncio.Task[None] | None = None
        self._drainer: asyncio.Task[Drained] | None = None
        self._draining = False
        self._began = 0.0
        self._asked = asyncio.Event()
        self.abandoned = 0
        """Producers that did not stop when told; their slots stay taken while they run."""

    def __len__(self) -> int:
        """The number of runs that it drives now, those that wait included."""
        return len(self._held)

    async def __aenter__(self) -> Self:
        self._began = time.time()
        self._takers = [
            spawn(self._repeat(self._claim), f"loom-claim {self.name}"),
            spawn(self._repeat(self._sweep), f"loom-sweep {self.name}"),
            # By a name of its own: a store gives a claim whose reply was lost to the same name again.
            spawn(Watchman(self._store, f"{self.name}:watchman", self._trouble).run(), f"loom-watchman {self.name}"),
        ]
        self._renewer = spawn(self._renew_loop(), f"loom-renew {self.name}")
        self._teller = spawn(self._repeat(self._tell), f"loom-tell {self.name}")
        return self

    async def __aexit__(self, *exc: object) -> None:
        try:
            if self._drainer is not None:
                await wait_out(self._drainer)
        finally:
            await self.drain()

    @property
    def queues(self) -> tuple[str, ...]:
        """The queues that it serves."""
        return self._registry.queues if self._given_queues is None else self._given_queues

    async def wait_asked(self) -> None:
        """Until somebody has asked it to drain, through the store. It has begun to."""
        await self._asked.wait()

    @property
    def draining(self) -> bool:
        """True once it takes nothing new any more."""
        return self._draining

    @property
    def running(self) -> dict[str, bool]:
        """The runs that it drives now, by id: whether each can be handed over without losing anything."""
        return {one.claim.run: one.runner.continues for one in self._held.values()}

    async def drain(self, timeout: float | None = None) -> Drained:
        """Take nothing new, hand continuing runs over at once, let the others finish for `timeout` seconds (default:
        the worker's own); what is left is released if it may be retried, else ends with `run_lost`. Idempotent.

        Returns what became of the runs that were running."""
        timeout = self._drain_time if timeout is None else timeout
        self._draining = True
        try:
            await cancel_and_wait(*self._takers)
            held = list(self._held.values())
            for one in held:
                if one.runner.continues:
                    one.runner.stop(Stop.HAND_OVER)
            await self._tasks.wait_all(timeout)
            for one in list(self._held.values()):
                one.runner.stop(Stop.LAST_CALL)
            await self._tasks.wait_all(limits.ABANDON_AFTER + 1)
        finally:
            await self._close()
        return _drained(held)

    async def _close(self) -> None:
        """End whatever is still going on, at once."""
        tasks = [*self._takers, *(task for task in (self._renewer, self._teller) if task is not None)]
        try:
            await cancel_and_wait(*tasks)
        finally:
            try:
                await self._tasks.aclose()
            finally:
                await self._renewals.aclose()
                if self._clients is not None:
                    await self._clients.aclose()
        await self._dismiss()

    async def _dismiss(self) -> None:
        """For information only: what cannot be told now, lapses."""
        try:
            async with asyncio.timeout(limits.LEAVE):
                await self._store.workers.deregister(self.name)
        except (LoomError, TimeoutError):
            return
        except Exception:  # a store's own fault: leaving goes on
            _log.exception("worker %s: it was not taken from the register", self.name)

    async def _repeat(self, turn: Callable[[], Awaitable[None]]) -> None:
        """`turn` for ever, with a pause after each one that failed."""
        soon, late = Backoff.of_store(), Backoff.of_refusals()
        while True:
            try:
                await turn()
            except Exception as error:  # a store's own fault; one that stops claiming or sweeping would idle unnoticed
                self._trouble.met(turn, error)
                await (soon if isinstance(error, REPEATABLE) else late).pause()
            else:
                self._trouble.over(turn)
                soon.reset()
                late.reset()

    async def _claim(self) -> None:
        """One claim. It is asked for anew where what it leaves out has changed, or a run that goes on needs its slot;
        while no run waits and none is left out, neither can happen."""
        await self._slots.reserve()
        try:
            without = (*self._slots.full, *self._strangers.left_out)
            if without or self._slots.waiting:
                await self._take_unless_changed(without)
            else:
                await self._take(without)
        finally:
            self._slots.cancel()

    async def _take_unless_changed(self, without: Collection[str]) -> None:
        self._slots.changed.clear()
        taking = spawn(self._take(without), f"loom-claim-but {self.name}")
        changed = spawn(self._slots.changed.wait(), f"loom-room {self.name}")
        try:
            await asyncio.wait({taking, changed}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await cancel_and_wait(taking, changed)
        if not taking.cancelled():
            taking.result()

    def _limit(self, actor: str) -> int | None:
        producer = self._registry.find(actor)
        return None if producer is None else producer.concurrency

    async def _take(self, without: Collection[str]) -> None:
        claim = await self._store.queue.claim(
            self.queues,
            self.name,
            lease=self._lease,
            wait=min(CLAIM_WAIT, self._lease),
            exclude=without,
        )
        if claim is not None:
            self._begin(claim)

    async def _sweep(self) -> None:
        await self._store.sweep()
        await asyncio.sleep(limits.SWEEP_EVERY)

    async def _tell(self) -> None:
        """Tell of ourselves, and hear whether we shall drain."""
        info = WorkerInfo(
            name=self.name,
            host=socket.gethostname(),
            pid=os.getpid(),
            queues=self.queues,
            actors=tuple(sorted(producer.name for producer in self._registry)),
            concurrency=self._concurrency,
            running=len(self._held),
            started=self._began,
            draining=self._draining,
        )
        if await self._store.workers.register(info) and not self._draining:
            _log.warning("worker %s: it was asked to drain", self.name)
            self._drainer = spawn(self.drain(), f"loom-drain {self.name}")
            self._asked.set()
        await asyncio.sleep(min(self._lease / limits.RENEW_FRACTION, ATTEND_EVERY))

    def _begin(self, claim: Claim) -> None:
        full = self._slots.is_full(claim.meta.actor)
        slot = self._slots.begin(claim.meta.actor)
        self._strangers.meet(claim)
        runner = Runner(self._store, self._registry, claim, self._resources, slot, self._clients)
        task = self._tasks.spawn(self._drive(claim, runner, slot, full), f"loom-claimed {claim.run}")
        self._held[claim.run, claim.number] = _Held(claim, runner, task)

    async def _drive(self, claim: Claim, runner: Runner, slot: Slot, full: bool) -> Ending:
        """`full`: a run of its actor has gone on meanwhile, with the slot that this one would have needed."""
        ending = Ending.GIVEN_UP
        try:
            leaves = full or (not runner.exhausted and await self._strangers.leaves(claim))
            ending = Ending.RELEASED if leaves else await runner.run()
        except LoomError as error:  # what the store refuses: the claim lapses, and whoever takes over counts a crash
            _log.warning("run %s: given up: %s", claim.run, escaped(str(error)))
        except Exception:  # a fault of ours or of the store's: likewise
            _log.exception("run %s: given up", claim.run)
        finally:
            self._free_slot(slot, runner)
            del self._held[claim.run, claim.number]
        await self._settle(claim, ending)
        return ending

    def _free_slot(self, slot: Slot, runner: Runner) -> None:
        if runner.abandoned is None or runner.abandoned.done():
            slot.release()
            return
        self.abandoned += 1
        if self.abandoned == self._concurrency:
            _log.error("worker %s: it takes nothing new: none of its producers stops", self.name)
        runner.abandoned.add_done_callback(partial(self._recover, slot))

    def _recover(self, slot: Slot, task: asyncio.Task[object]) -> None:
        """An abandoned producer has ended after all."""
        self.abandoned -= 1
        slot.release()
        if not task.cancelled():
            task.exception()  # seen: its run ended long ago

    async def _settle(self, claim: Claim, ending: Ending) -> None:
        if ending is Ending.GIVEN_UP:
            return
        settle = self._store.queue.ack if ending is Ending.ENDED else self._store.queue.release
        try:
            async with asyncio.timeout(self._lease):
                await Backoff.of_store().attempt(lambda: settle(claim))
        except (LoomError, TimeoutError):
            # Somebody else holds the claim, or will when the lease lapses; a claim of an ended run is dropped.
            _log.info("run %s: its claim was not settled here", claim.run)
        except Exception:  # a store's own fault: the claim lapses all the same
            _log.exception("run %s: its claim was not settled here", claim.run)

    async def _renew_loop(self) -> None:
        """Many by one call, for that is cheap; all of them within each third of a lease, evenly spread, so that no
        producer waits for all of them. It is asked anew though a call before may hang."""
        period = self._lease / limits.RENEW_FRACTION
        while True:
            held = list(self._held.values())
            starts = range(0, len(held), RENEWED_AT_ONCE) or (0,)
            for start in starts:
                some = [one for one in held[start : start + RENEWED_AT_ONCE] if one.driven]
                if some:
                    self._renewals.spawn(self._renew(some), f"loom-renew {self.name}")
                due = time.monotonic() + period / len(starts)
                await asyncio.sleep(period / len(starts))
                self._tell_lag(time.monotonic() - due)

    def _tell_lag(self, late: float) -> None:
        """A producer that blocks the loop holds up every run, viewer and lease of this process: say so."""
        if late > LOOP_LAG:
            runs = ", ".join(f"{one.claim.meta.actor} {one.claim.run}" for one in list(self._held.values())[:5])
            _log.warning(
                "worker %s: the event loop stood still for %.1f s (running: %s); what blocks belongs in a plain "
                "function, which gets a thread, and what computes in one and holds the interpreter's lock in a process",
                self.name, late, runs or "nothing",
            )  # fmt: skip

    async def _renew(self, held: Sequence[_Held]) -> None:
        """Keep the claims, or stop their producers: at once when another holds one, at its lease's end when unknown."""
        while held:
            first = min(one.renewed for one in held) + self._lease
            left = first - time.monotonic()
            if left <= 0:  # this process stood still; the store knows whether somebody took over meanwhile
                left = self._lease / limits.RENEW_FRACTION
            try:
                async with asyncio.timeout(left):
                    await Backoff.of_store().attempt(partial(self._ask, held))
                self._trouble.over(self._renew)
                return
            except TimeoutError:
                ended = max(first, time.monotonic())  # timers may be early by a rounding
                for one in held:
                    if one.renewed + self._lease <= ended:
                        one.give_up("the lease ended and the store is out of reach")
                held = [one for one in held if one.driven]
            except Exception as error:  # a store's own fault: if it lasts, the leases lapse, and writes are refused
                self._trouble.met(self._renew, error)
                return

    async def _ask(self, held: Sequence[_Held]) -> None:
        """Renew; a lease counts from when it was asked for."""
        asked = time.monotonic()
        for one, kept in zip(held, await self._store.queue.renew_all([one.claim for one in held]), strict=True):
            if kept:
                one.renewed = max(one.renewed, asked)
            elif (one.claim.run, one.claim.number) in self._held:  # else it is done, and was acknowledged meanwhile
                one.give_up("another worker took over")

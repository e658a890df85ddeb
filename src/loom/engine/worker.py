"""The worker: claims runs, drives them, renews its leases, sweeps, drains on request.

Leases only give liveness; the epoch in the store gives safety. A worker that cannot renew stops its producers at the
end of the lease and writes nothing after.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import NamedTuple, Self

from loom.model import limits
from loom.model.errors import Fenced, LoomError
from loom.model.ports import Store
from loom.model.run import Claim

from .attempt import Ending, Resources, Stop
from .backoff import REPEATABLE, Backoff
from .registry import Registry
from .runner import Runner
from .tasks import TaskSet, cancel_and_wait, spawn
from .watchman import Watchman

__all__ = ["Drained", "Worker"]

_log = logging.getLogger("loom.worker")


class _Held:
    """A claim that this worker drives."""

    def __init__(self, claim: Claim, runner: Runner, task: asyncio.Task[Ending]) -> None:
        self.claim = claim
        self.runner = runner
        self.task = task
        self.renewed = time.monotonic()
        self.renewal: asyncio.Task[None] | None = None

    def give_up(self, why: str) -> None:
        """Stop the producer; nothing more is written."""
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
    """Drives up to `concurrency` runs at a time. An async context manager: entering starts it, leaving drains it.

    `lease`: seconds after which another worker takes over when this one is killed. `drain`: seconds that running
    producers get on shutdown.
    """

    def __init__(
        self,
        store: Store,
        registry: Registry,
        *,
        name: str | None = None,
        queues: Sequence[str] = ("default",),
        concurrency: int = limits.CONCURRENCY,
        lease: float = limits.LEASE,
        drain: float = limits.DRAIN,
        resources: Resources | None = None,
    ) -> None:
        self.name = name or f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._store = store
        self._registry = registry
        self._queues = tuple(queues)
        self._lease = lease
        self._drain_time = drain
        self._resources = resources or Resources()
        self._slots = asyncio.Semaphore(concurrency)
        self._threads = asyncio.Semaphore(min(concurrency, limits.THREADS))
        # By claim: one that lapsed may still be winding up here while the same run is driven anew.
        self._held: dict[tuple[str, int], _Held] = {}
        self._tasks = TaskSet()
        self._renewals = TaskSet()
        self._takers: list[asyncio.Task[None]] = []
        self._renewer: asyncio.Task[None] | None = None
        self.abandoned = 0
        """Producers that did not stop when told; their slots stay taken while they run."""

    def __len__(self) -> int:
        """How many runs it drives now."""
        return len(self._held)

    async def __aenter__(self) -> Self:
        self._takers = [
            spawn(self._repeat(self._claim), f"loom-claim {self.name}"),
            spawn(self._repeat(self._sweep), f"loom-sweep {self.name}"),
            spawn(Watchman(self._store, self.name).run(), f"loom-watchman {self.name}"),
        ]
        self._renewer = spawn(self._renew_loop(), f"loom-renew {self.name}")
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.drain()

    @property
    def running(self) -> dict[str, bool]:
        """The runs that it drives now, by id: whether each can be handed over without losing anything."""
        return {one.claim.run: one.runner.continues for one in self._held.values()}

    async def drain(self, timeout: float | None = None) -> Drained:
        """Take nothing new, hand continuing runs over at once, let the others finish for `timeout` seconds (default:
        the worker's own); what is left is released if it may be retried, else ends with `run_lost`. Idempotent.

        Returns what became of the runs that were running."""
        timeout = self._drain_time if timeout is None else timeout
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
        tasks = [*self._takers] if self._renewer is None else [*self._takers, self._renewer]
        try:
            await cancel_and_wait(*tasks)
        finally:
            try:
                await self._tasks.aclose()
            finally:
                await self._renewals.aclose()

    async def _repeat(self, turn: Callable[[], Awaitable[None]]) -> None:
        """`turn` for ever, with a pause after each one that failed."""
        backoff = Backoff.of_store()
        while True:
            try:
                await turn()
            except REPEATABLE as error:
                _log.warning("worker %s: the store is out of reach: %s", self.name, error)
            except Exception:  # a store's own fault; a worker that stops claiming or sweeping would idle unnoticed
                _log.exception("worker %s: the store failed", self.name)
            else:
                backoff.reset()
                continue
            await backoff.pause()

    async def _claim(self) -> None:
        await self._slots.acquire()
        claim: Claim | None = None
        try:
            claim = await self._store.claim(
                self._queues, self.name, lease=self._lease, wait=min(limits.CLAIM_WAIT, self._lease)
            )
        finally:
            if claim is None:
                self._slots.release()
        if claim is not None:
            self._begin(claim)

    async def _sweep(self) -> None:
        await self._store.sweep()
        await asyncio.sleep(limits.SWEEP_EVERY)

    def _begin(self, claim: Claim) -> None:
        runner = Runner(self._store, self._registry, claim, self._resources, self._threads)
        task = self._tasks.spawn(self._drive(claim, runner), f"loom-claimed {claim.run}")
        self._held[claim.run, claim.number] = _Held(claim, runner, task)

    async def _drive(self, claim: Claim, runner: Runner) -> Ending:
        ending = Ending.GIVEN_UP
        try:
            ending = await runner.run()
        except Exception:  # a fault of ours or of the store's: the claim lapses, and whoever takes over counts a crash
            _log.exception("run %s: given up", claim.run)
        finally:
            self._free_slot(runner)
            del self._held[claim.run, claim.number]
        await self._settle(claim, ending)
        return ending

    def _free_slot(self, runner: Runner) -> None:
        if runner.abandoned is None or runner.abandoned.done():
            self._slots.release()
            return
        self.abandoned += 1
        runner.abandoned.add_done_callback(self._recover)

    def _recover(self, task: asyncio.Task[object]) -> None:
        """An abandoned producer has ended after all."""
        self.abandoned -= 1
        self._slots.release()
        if not task.cancelled():
            task.exception()  # seen: its run ended long ago

    async def _settle(self, claim: Claim, ending: Ending) -> None:
        if ending is Ending.GIVEN_UP:
            return
        settle = self._store.ack if ending is Ending.ENDED else self._store.release
        try:
            async with asyncio.timeout(self._lease):
                await Backoff.of_store().attempt(lambda: settle(claim))
        except (LoomError, TimeoutError):
            # Somebody else holds the claim, or will when the lease lapses; a claim of an ended run is dropped.
            _log.info("run %s: its claim was not settled here", claim.run)

    async def _renew_loop(self) -> None:
        """All at the same moment, for the store writes them together; none waits for another's."""
        pause = self._lease / limits.RENEW_FRACTION
        while True:
            due = time.monotonic() + pause
            await asyncio.sleep(pause)
            self._tell_lag(time.monotonic() - due)
            for held in list(self._held.values()):
                if held.renewal is None or (held.renewal.done() and not held.task.cancelling()):
                    held.renewal = self._renewals.spawn(self._renew(held), f"loom-renew {held.claim.run}")

    def _tell_lag(self, late: float) -> None:
        """A producer that blocks the loop holds up every run, viewer and lease of this process: say so."""
        if late > limits.LOOP_LAG:
            runs = ", ".join(f"{one.claim.meta.actor} {one.claim.run}" for one in list(self._held.values())[:5])
            _log.warning(
                "worker %s: the event loop stood still for %.1f s (running: %s); what blocks belongs in a plain "
                "function, which gets a thread",
                self.name, late, runs or "nothing",
            )  # fmt: skip

    async def _renew(self, held: _Held) -> None:
        """Keep the claim, or stop its producer: at once when another holds it, at the lease's end when unknown."""
        left = held.renewed + self._lease - time.monotonic()
        if left <= 0:  # this process stood still; the store knows whether somebody took over meanwhile
            left = self._lease / limits.RENEW_FRACTION
        try:
            async with asyncio.timeout(left):
                held.renewed = await Backoff.of_store().attempt(lambda: self._ask(held.claim))
        except Fenced:
            if not held.task.done():
                held.give_up("another worker took over")
        except TimeoutError:
            held.give_up("the lease ended and the store is out of reach")
        except Exception:  # a store's own fault: if it lasts, the lease lapses and the store refuses what is written
            _log.exception("run %s: its lease was not renewed", held.claim.run)

    async def _ask(self, claim: Claim) -> float:
        """Renew; the lease counts from when it was asked for."""
        asked = time.monotonic()
        await self._store.renew(claim)
        return asked

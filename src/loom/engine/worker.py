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
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Self

from loom.model import limits
from loom.model.errors import Fenced, LoomError
from loom.model.ports import Store
from loom.model.run import Claim

from .backoff import REPEATABLE, Backoff
from .registry import Registry
from .runner import Ending, Resources, Runner, Stop
from .tasks import TaskSet, cancel_and_wait, spawn

__all__ = ["Drained", "Worker"]

_log = logging.getLogger("loom.worker")


class _Held:
    """A claim that this worker drives."""

    def __init__(self, claim: Claim, runner: Runner, task: asyncio.Task[Ending]) -> None:
        self.claim = claim
        self.runner = runner
        self.task = task
        self.renewed = time.monotonic()


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
        self._held: dict[str, _Held] = {}
        self._tasks = TaskSet()
        self._background: list[asyncio.Task[None]] = []
        self.abandoned = 0
        """Producers that did not stop when told; their slots stay taken while they run."""

    def __len__(self) -> int:
        """How many runs it drives now."""
        return len(self._held)

    async def __aenter__(self) -> Self:
        self._background = [
            spawn(self._claim_loop(), f"loom-claim {self.name}"),
            spawn(self._renew_loop(), f"loom-renew {self.name}"),
            spawn(self._sweep_loop(), f"loom-sweep {self.name}"),
        ]
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.drain()

    @property
    def running(self) -> dict[str, bool]:
        """The runs that it drives now, by id: whether each can be handed over without losing anything."""
        return {run: one.runner.continues for run, one in self._held.items()}

    async def drain(self, timeout: float | None = None) -> Drained:
        """Take nothing new, hand continuing runs over at once, let the others finish for `timeout` seconds (default:
        the worker's own); what is left is released if it may be retried, else ends with `run_lost`. Idempotent.

        Returns what became of the runs that were running."""
        timeout = self._drain_time if timeout is None else timeout
        await cancel_and_wait(*self._background[:1], *self._background[2:])
        held = list(self._held.values())
        for one in held:
            if one.runner.continues:
                one.runner.stop(Stop.HAND_OVER)
        await self._tasks.wait_all(timeout)
        for one in list(self._held.values()):
            one.runner.stop(Stop.LAST_CALL)
        await self._tasks.wait_all(limits.ABANDON_AFTER + 1)
        await self._tasks.aclose()
        await cancel_and_wait(*self._background)
        self._background = []
        return _drained(held)

    async def _claim_loop(self) -> None:
        backoff = Backoff.of_store()
        while True:
            await self._slots.acquire()
            claim: Claim | None = None
            try:
                claim = await self._store.claim(
                    self._queues, self.name, lease=self._lease, wait=min(limits.CLAIM_WAIT, self._lease)
                )
                backoff.reset()
            except REPEATABLE as error:
                _log.warning("worker %s cannot claim: %s", self.name, error)
                await backoff.pause()
            finally:
                if claim is None:
                    self._slots.release()
            if claim is not None:
                self._begin(claim)

    def _begin(self, claim: Claim) -> None:
        runner = Runner(self._store, self._registry, claim, self._resources, self._threads)
        task = self._tasks.spawn(self._drive(claim, runner), f"loom-claimed {claim.run}")
        self._held[claim.run] = _Held(claim, runner, task)

    async def _drive(self, claim: Claim, runner: Runner) -> Ending:
        ending = Ending.GIVEN_UP
        try:
            ending = await runner.run()
        except LoomError:
            _log.exception("run %s: given up", claim.run)
        finally:
            self._free_slot(runner)
            self._held.pop(claim.run, None)
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
        except (Fenced, TimeoutError):
            # Somebody else holds the claim, or will when the lease lapses; a claim of an ended run is dropped.
            _log.info("run %s: its claim was not settled here", claim.run)

    async def _renew_loop(self) -> None:
        while True:
            await asyncio.sleep(self._lease / limits.RENEW_FRACTION)
            await asyncio.gather(*(self._renew(held) for held in list(self._held.values())))

    async def _renew(self, held: _Held) -> None:
        """Keep the claim, or stop its producer: at once when another holds it, at the lease's end when unknown."""
        left = held.renewed + self._lease - time.monotonic()
        if left <= 0:  # this process stood still; the store knows whether somebody took over meanwhile
            left = self._lease / limits.RENEW_FRACTION
        try:
            async with asyncio.timeout(left):
                await Backoff.of_store().attempt(lambda: self._store.renew(held.claim))
        except Fenced:
            _log.warning("run %s: another worker took over", held.claim.run)
            held.task.cancel()
        except TimeoutError:
            _log.warning("run %s: the lease ended and the store is out of reach", held.claim.run)
            held.task.cancel()
        else:
            held.renewed = time.monotonic()

    async def _sweep_loop(self) -> None:
        while True:
            try:
                await self._store.sweep()
            except REPEATABLE as error:
                _log.warning("worker %s cannot sweep: %s", self.name, error)
            await asyncio.sleep(limits.SWEEP_EVERY)

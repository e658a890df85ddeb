"""One seed, one history: workers, gateways, clients and viewers on one virtual-time loop over one store."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import msgspec

from loom.app import App
from loom.model import limits
from loom.model.cursor import Cursor
from loom.model.errors import LogNotFound, UsageError
from loom.model.ports import Store
from loom.stores.memory import MemoryStore
from loom.tasks import TaskSet
from loom.testing.clock import StoreFactory

from .check import Outbox, check
from .history import Fault, Logged
from .houses import Gateways, House, gateway_of, worker_of
from .loop import SimulationLoop
from .people import Start, Viewer, cancel, start
from .report import Report
from .stand_ins import EPOCH, stand_ins
from .world import Faults, World

__all__ = ["Runs", "simulate"]

Runs = Sequence[tuple[str, Any] | tuple[str, Any, dict[str, Any]]]
"""What is started: an actor's name, its input (None: none), and options of `Client.start` (`key`, `timeout`, …)."""

_REPLAYS = 100
"""The most replays by which a failure's faults are thinned out."""


def simulate(
    app: App,
    runs: Runs,
    *,
    seed: int = 0,
    workers: int = 3,
    gateways: int = 2,
    viewers: int = 2,
    seconds: float = 120.0,
    settle: float = 600.0,
    cancels: float = 0.1,
    lease: float = limits.LEASE,
    faults: Faults | None = None,
    store: StoreFactory | None = None,
    thin: bool = True,
) -> Report:
    """Run `runs` for `seconds` of virtual time in which things go wrong, then at most `settle` in which nothing does,
    and check what happened against the guarantees G1 to G10. The same seed gives the same history.

    `viewers` follow each run, through `gateways` processes, which start the runs in the first half of the time, and
    cancel the share `cancels` of them. `lease` as in `Worker`. `store` makes the one store under test from a monotonic
    clock; whatever it waits for must be the loop's (no thread, no socket), and its calls take effect in the order in
    which they return. Default: memory. With `thin` a failure is replayed with fewer faults, to name those it needs.

    The producers must be asynchronous, and deterministic: the `random` module is seeded, and Loom's clocks are virtual,
    but `uuid`, `secrets` and `time` are as ever in modules that are not Loom's. One simulation at a time in a process,
    and none on a running loop. Raises `UsageError` for what cannot be simulated, what entering the app's lifespan
    raises never: workers that do not start are found as runs that do not end.
    """
    faults = faults or Faults()
    faults.check()
    _check_runs(app, runs)
    plan = _Plan(app, runs, workers, gateways, viewers, seconds, settle, cancels, lease, faults, store or _memory)
    report = plan.play(seed)
    return report if report.ok or not thin else _thinned(plan, report)


def _memory(clock: Callable[[], float]) -> Store:
    return MemoryStore(retention=None, clock=clock, wall=lambda: EPOCH + clock())


def _check_runs(app: App, runs: Runs) -> None:
    if not runs:
        raise UsageError("there is nothing to simulate: no runs")
    for actor in {run[0] for run in runs}:
        if app.registry.get(actor).driver.threaded:
            raise UsageError(f"actor {actor!r} runs in a thread, which has no virtual time")
    for queue in {run[2].get("queue") for run in runs if len(run) > 2}:
        if queue is not None and queue not in app.registry.queues:
            raise UsageError(
                f"no worker serves queue {queue!r}: those simulated serve {', '.join(app.registry.queues)}"
            )


class _Plan:
    """All of a simulation but its seed."""

    def __init__(
        self,
        app: App,
        runs: Runs,
        workers: int,
        gateways: int,
        viewers: int,
        seconds: float,
        settle: float,
        cancels: float,
        lease: float,
        faults: Faults,
        store: StoreFactory,
    ) -> None:
        self.app = app
        self.runs = [Start(f"run-{n}", run[0], run[1], run[2] if len(run) > 2 else {}) for n, run in enumerate(runs, 1)]
        self.workers = workers
        self.gateways = gateways
        self.viewers = viewers
        self.seconds = seconds
        self.settle = settle
        self.cancels = cancels
        self.lease = lease
        self.faults = faults
        self.store = store

    def play(self, seed: int, spared: Collection[str] = ()) -> Report:
        """The history of `seed`, but for the faults at the steps `spared`."""
        outboxes: dict[str, Outbox | None] = {}
        with asyncio.Runner(loop_factory=SimulationLoop) as runner:
            loop = runner.get_loop()
            assert isinstance(loop, SimulationLoop)
            with stand_ins(loop.time, seed):
                world = World(loop, self.store(loop.time), self.faults, seed=seed, spared=spared)
                # It returns nothing: asyncio makes the text of what a loop's first task returns.
                runner.run(self._play(world, outboxes))
            seconds = world.now
        violations = check(world.history, outboxes, lease=self.lease, faults=self.faults)
        return Report(
            seed=seed,
            violations=tuple(violations),
            history=tuple(world.history),
            outboxes=outboxes,
            seconds=seconds,
        )

    async def _play(self, world: World, outboxes: dict[str, Outbox | None]) -> None:
        async with world.store:
            with _listening(world):
                outboxes.update(await _Stage(world, self).play())


class _Stage:
    """Everybody who takes part in one history."""

    def __init__(self, world: World, plan: _Plan) -> None:
        self._world = world
        self._plan = plan
        worker, gateway = worker_of(plan.app, plan.lease), gateway_of(plan.app)
        self._workers = [House(world, f"worker-{n}", worker, plan.lease) for n in range(1, plan.workers + 1)]
        fronts = [House(world, f"gateway-{n}", gateway, plan.lease) for n in range(1, plan.gateways + 1)]
        self._houses = [*self._workers, *fronts]
        self._gateways = Gateways(world, fronts)
        self._viewers = {
            f"viewer-{n} of {wanted.run}": Viewer(world, self._gateways, f"viewer-{n} of {wanted.run}", wanted.run)
            for wanted in plan.runs
            for n in range(1, plan.viewers + 1)
        }

    async def play(self) -> dict[str, Outbox | None]:
        """The history; the logs at its end."""
        async with TaskSet() as tasks:
            for house in self._houses:
                tasks.spawn(house.keep(), "keeper")
            disturbing = TaskSet()
            for house in self._houses:
                disturbing.spawn(house.haunt(), "haunt")
            people = [tasks.spawn(self._live(wanted), f"people of {wanted.run}") for wanted in self._plan.runs]
            await asyncio.wait(people, timeout=self._plan.seconds)
            await disturbing.aclose()
            self._calm()
            done, _ = await asyncio.wait(people, timeout=self._plan.settle)
            for task in done:
                task.result()  # what fails there is this tool's own fault
        self._tell_blind()
        outboxes = {wanted.run: await _outbox(self._world.store, wanted.run) for wanted in self._plan.runs}
        await self._bury()
        return outboxes

    async def _live(self, wanted: Start) -> None:
        """A run's client and viewers, from its start until everybody has seen its end."""
        world = self._world
        draws = world.draws(f"people of {wanted.run}")
        await asyncio.sleep(draws[0] * self._plan.seconds / 2)
        if not await start(world, self._gateways, wanted):
            return
        async with TaskSet() as tasks:
            for name, viewer in self._viewers.items():
                if name.endswith(f" of {wanted.run}"):
                    tasks.spawn(viewer.follow(), name)
            if draws[1] < self._plan.cancels:
                await asyncio.sleep(draws[2] ** 2 * self._plan.seconds / 2)
                await cancel(world, self._gateways, wanted.run)
            await tasks.wait_all()
            await self._ended(wanted.run)

    async def _ended(self, run: str) -> None:
        """Also when nobody views it. Looked at in the store itself, by nobody in particular."""
        with contextlib.suppress(LogNotFound):  # acknowledged, and not there: the checker sees it
            while not (await self._world.store.runs.get(run)).ended:  # noqa: ASYNC110 - the store is what is asked
                await asyncio.sleep(1.0)

    def _calm(self) -> None:
        self._world.calm.set()
        for house in self._houses:
            house.calm()

    def _tell_blind(self) -> None:
        for name, viewer in self._viewers.items():
            if not viewer.ended:
                self._tell(f"{name}: it has not seen the end")

    def _tell(self, text: str) -> None:
        self._world.history.append(Logged(self._world.now, text))

    async def _bury(self) -> None:
        """What happens here is no part of the history any more."""
        told = len(self._world.history)
        left = [name for house in self._houses for name in await house.bury()]
        del self._world.history[told:]
        for name in left:
            self._tell(f"a task could not be ended: {name}")


async def _outbox(store: Store, run: str) -> Outbox | None:
    """A run's log, read from its beginning; None if there is none."""
    lines: list[tuple[Cursor, bytes]] = []
    after: Cursor | None = None
    try:
        head = await store.runs.get(run)
        while len(lines) <= head.tail:
            page = await store.logs.read(run, after, limit=limits.READ_LIMIT)
            lines += page.lines()
            after = page.cursor
            if page.caught_up or not page.batches:
                break
    except LogNotFound:
        return None
    return Outbox(run, tuple(lines), head.ended)


@contextlib.contextmanager
def _listening(world: World) -> Iterator[None]:
    """Loom's log goes into the history where it tells an error, and nowhere else: in a simulation an outage is no news.
    So does what the loop reports: a task's failure that nobody has looked at."""

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            error = record.exc_info[1] if record.exc_info else None
            world.history.append(Logged(world.now, f"{record.name}: {record.getMessage()} ({error!r})"))

    def reported(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        world.history.append(Logged(world.now, f"{context.get('message')} ({context.get('exception')!r})"))

    logger, listener = logging.getLogger("loom"), Listener(logging.ERROR)
    propagates, handlers = logger.propagate, list(logger.handlers)
    logger.propagate = False
    logger.handlers[:] = [listener]
    world.loop.set_exception_handler(reported)
    try:
        yield
    finally:
        logger.propagate = propagates
        logger.handlers[:] = handlers
        world.loop.set_exception_handler(None)


def _thinned(plan: _Plan, report: Report) -> Report:
    """The failure with the faults that it needs, as far as a bounded number of replays finds them: halves of them are
    left out, then quarters, and so on."""
    faults, spared, replays = _faults_of(report), frozenset[str](), 0
    size = -(-len(faults) // 2)
    while size:
        at = 0
        while at < len(faults) and replays < _REPLAYS:
            replays += 1
            without = spared | {fault.step for fault in faults[at : at + size]}
            tried = plan.play(report.seed, without)
            if _kinds(tried) & _kinds(report):
                faults, spared = _faults_of(tried), without
            else:
                at += size
        size //= 2
    return msgspec.structs.replace(report, needed=tuple(faults))


def _faults_of(report: Report) -> list[Fault]:
    return [one for one in report.history if isinstance(one, Fault)]


def _kinds(report: Report) -> set[str]:
    return {violation.guarantee for violation in report.violations}

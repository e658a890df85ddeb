"""A storm: three workers, two gateways, six viewers, some hundred runs, and a fault every half second."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NamedTuple

import loom
from loom.tasks import TaskSet
from tests.mortal import free_port
from tests.servers.clock import Clock

from . import checker
from .follow import opened
from .harness import Follower, Log, Process, RawViewer, Seen, follow_http, read_logs
from .places import Place, jumps

LEASE = 1.0
EVERY = 0.5
WORKERS = 3
SLOTS = 6
"""Runs that a worker drives at a time: so few that every worker has some, and a fault hits some; so many that two of
the three have room for what the third one held."""
ZOMBIE_SLOTS = 2 * SLOTS
"""Room for all, always: what a zombie holds is taken over."""
STOPPED = "worker stopped beyond its lease"
"""What makes zombies: where they are wanted, it happens twice as often."""
UP = "runs at a time"
"""What a worker says when it is up."""
RUNS_A_SECOND = 200 / 60
KEYS = 8
PLAIN = {"n": 80, "pace": 0.06}
KEYED = {"n": 15, "pace": 0.02}
SETTLE = 60.0
"""Seconds after the last fault by which every viewer must have seen every run's end."""


class Viewers:
    """Six, each of which follows every run: two clients on the store in processes of their own, and by way of each of
    two gateways a Python client and a bare socket."""

    def __init__(self, url: str, ports: list[int]) -> None:
        self._ports = ports
        self._tasks = TaskSet()
        self.apart = [Follower(url), Follower(url)]
        self.http: list[dict[str, Seen]] = [{} for _ in ports]
        self.raw: list[dict[str, RawViewer]] = [{} for _ in ports]
        self._all: list[asyncio.Task[None]] = [self._spawn(one.follow()) for one in self.apart]

    def add(self, run: str) -> None:
        for follower in self.apart:
            follower.add(run)
        for port, http, raw in zip(self._ports, self.http, self.raw, strict=True):
            http[run] = []
            raw[run] = RawViewer(port, run)
            self._all.append(self._spawn(follow_http(f"http://127.0.0.1:{port}", run, http[run])))
            self._all.append(self._spawn(raw[run].follow()))

    async def finish(self, timeout: float) -> None:
        """Until each has seen the end of every run; raises what any raised."""
        for follower in self.apart:
            follower.close()
        async with asyncio.timeout(timeout):
            await asyncio.gather(*self._all)

    def check(self) -> None:
        """Raises what any has raised by now."""
        for task in self._all:
            if task.done():
                task.result()

    def seen(self, run: str) -> dict[str, Seen]:
        """What each saw of a run, by the viewer's name."""
        return {
            **{f"store-{i}": one.seen[run] for i, one in enumerate(self.apart)},
            **{f"http-{i}": one[run] for i, one in enumerate(self.http)},
            **{f"raw-{i}": one[run].seen for i, one in enumerate(self.raw)},
        }

    async def aclose(self) -> None:
        await self._tasks.aclose()

    def _spawn(self, following: Awaitable[None]) -> asyncio.Task[None]:
        async def follow() -> None:
            await following

        return self._tasks.spawn(follow(), "viewer")


class Counts(NamedTuple):
    """What a storm did, and what it must not have done."""

    runs: int
    chunks: int
    attempts: int
    viewers: int
    hits: Counter[str]
    refused: int
    """Writers that the store itself refused."""
    wrong: Counter[str]
    span: float
    """Seconds between the earliest and the latest time of a chunk."""


class Storm:
    """One storm over one store; everything it decides comes from `seed`.

    `zombies`: the workers' own check of their leases is off, so that it is the store that must refuse. `clock`: that
    of all workers but the last, and it jumps; then the order within keys is not checked, for it is checked by times.
    """

    def __init__(
        self,
        place: Place,
        folder: Path,
        *,
        seed: int,
        seconds: float,
        zombies: bool = False,
        clock: Clock | None = None,
    ) -> None:
        self._place = place
        self._folder = folder
        self._dice = random.Random(seed)
        self._seed = seed
        self._seconds = seconds
        self._clock = clock
        self._zombies = zombies
        self._client: loom.Client
        self._ports = [free_port(), free_port()]
        self._workers = [self._worker(i, zombies) for i in range(WORKERS)]
        self._gateways = [self._gateway(i, port) for i, port in enumerate(self._ports)]
        self._stopped: set[Process] = set()
        self._stops = TaskSet()
        self._hits: Counter[str] = Counter()
        self._events: list[tuple[float, str]] = []
        self._began = 0.0
        self._runs: dict[str, int] = {}
        self._keys: dict[str, list[str]] = {}

    async def rage(self) -> Counts:
        """Faults for so many seconds, then peace until every run has ended; then look what happened."""
        try:
            for process in self._processes():
                await process.start()
            for worker in self._workers:
                await worker.said(UP)  # else the first faults would hit nobody who has a run
            self._began = time.monotonic()
            viewers = Viewers(self._place.url, self._ports)
            try:
                await self._through(viewers)
                logs = await read_logs(self._place.url, self._runs)
                counts = self._judge(viewers, logs)
            except BaseException:
                self._save(viewers, {})
                raise
            finally:
                await viewers.aclose()
            if counts.wrong:
                self._save(viewers, logs)
            return counts
        finally:
            await self._stops.aclose()
            for process in self._processes():
                await process.stop()

    async def _through(self, viewers: Viewers) -> None:
        async with TaskSet() as tasks, AsyncExitStack() as stack, asyncio.timeout(self._seconds + SETTLE):
            self._client = await opened(self._place.url, stack)
            starting = tasks.spawn(self._start_runs(viewers), "start runs")
            await self._break_things(viewers)
            tasks.spawn(self._keep_up(), "keep up")
            await starting
            await self._stops.wait_all()
            await viewers.finish(SETTLE)

    # --- the workload -------------------------------------------------------------------------------------------------

    async def _start_runs(self, viewers: Viewers) -> None:
        """Evenly over the whole storm, every second one with a key."""
        number = round(self._seconds * RUNS_A_SECOND)
        for i in range(number):
            run = f"s{self._seed}-{i}"
            key = f"k{i // 2 % KEYS}" if i % 2 else None
            await self._start(run, key)
            viewers.add(run)
            await self._until(i * self._seconds / number)

    async def _start(self, run: str, key: str | None) -> None:
        given = PLAIN if key is None else KEYED
        while True:
            try:
                await self._client.start("count", given, id=run, key=key)
            except (loom.Unavailable, loom.OutcomeUnknown):
                await asyncio.sleep(0.05)  # as any caller would; the id makes it one run
            else:
                break
        self._runs[run] = int(given["n"])
        if key is not None:
            self._keys.setdefault(key, []).append(run)

    async def _until(self, moment: float) -> None:
        await asyncio.sleep(max(0.0, self._began + moment - time.monotonic()))

    # --- the faults ---------------------------------------------------------------------------------------------------

    async def _break_things(self, viewers: Viewers) -> None:
        faults = {
            "kill -9 of a worker": self._kill_worker,
            STOPPED: self._stop_worker,
            "kill -9 of a gateway": self._kill_gateway,
            **self._place.faults(self._dice),
        }
        if self._clock is not None:
            faults["jump of the workers' clock"] = jumps(self._clock, self._dice)
        self._hits.update(dict.fromkeys(faults, 0))
        deck = self._deck([*faults, *([STOPPED] if self._zombies else [])])
        while (passed := time.monotonic() - self._began) < self._seconds:
            viewers.check()
            await self._revive()
            name = next(deck)
            if await faults[name]():
                self._hits[name] += 1
                self._note(name)
            await self._until(passed + EVERY)

    async def _keep_up(self) -> None:
        while True:
            await self._revive()
            await asyncio.sleep(EVERY)

    async def _revive(self) -> None:
        """A worker or gateway that finds no store when it starts says so and ends; somebody starts it again."""
        for process in self._processes():
            if await process.revive():
                self._note("a process that had ended by itself was started again")

    def _deck(self, names: list[str]) -> Iterator[str]:
        """Each in turn, in an order that is drawn anew each time round: none is left out by bad luck."""
        while True:
            yield from self._dice.sample(names, len(names))

    async def _a_worker(self) -> Process:
        """One that is not stopped, and has runs to lose if any has."""
        running = [one for one in self._workers if one not in self._stopped]
        busy = await self._busy()
        return self._dice.choice([one for one in running if one.pid in busy] or running)

    async def _busy(self) -> set[int]:
        """The processes that hold claims, if the store can say so now."""
        try:
            async with asyncio.timeout(EVERY):
                held = await self._client.entries(place="leased", limit=1000)
        except (loom.Unavailable, TimeoutError):
            return set()
        return {int(entry.worker.partition("-")[0]) for entry in held if entry.worker}

    async def _kill_worker(self) -> bool:
        process = await self._a_worker()
        await process.kill()
        await process.start()
        return True

    async def _kill_gateway(self) -> bool:
        process = self._dice.choice(self._gateways)
        await process.kill()
        await process.start()
        return True

    async def _stop_worker(self) -> bool:
        if len(self._stopped) > WORKERS - 2:
            return False
        process = await self._a_worker()
        await self._place.stop(process)
        self._stopped.add(process)
        self._stops.spawn(self._wake(process, LEASE * self._dice.uniform(2.5, 4)), "wake")
        return True

    async def _wake(self, process: Process, after: float) -> None:
        await asyncio.sleep(after)
        self._note("a worker woke up late")
        process.signal(signal.SIGCONT)
        self._stopped.discard(process)

    def _note(self, what: str) -> None:
        self._events.append((round(time.monotonic() - self._began, 3), what))

    # --- the cast -----------------------------------------------------------------------------------------------------

    def _worker(self, i: int, zombie: bool) -> Process:
        log = self._folder / f"worker-{i}.log"
        clock = self._clock if i < WORKERS - 1 else None
        if zombie:
            return Process("zombie.py", self._place.url, str(ZOMBIE_SLOTS), log=log)
        worker = ["worker", "app:app", "--store", self._place.url, "--lease", f"{LEASE:g}", "--concurrency", str(SLOTS)]
        return Process(*worker, log=log, clock=clock)

    def _gateway(self, i: int, port: int) -> Process:
        serve = ["serve", "app:app", "--store", self._place.url, "--port", str(port), "--no-worker"]
        return Process(*serve, log=self._folder / f"gateway-{i}.log")

    def _processes(self) -> list[Process]:
        return [*self._workers, *self._gateways]

    # --- the outcome --------------------------------------------------------------------------------------------------

    def _judge(self, viewers: Viewers, logs: dict[str, Log]) -> Counts:
        wrong = checker.check_keys(logs, self._keys) if self._clock is None else Counter()
        for run, n in self._runs.items():
            wrong += checker.check_log(logs[run].seen, n)
            for view in viewers.seen(run).values():
                wrong += checker.check_view(view, logs[run].seen)
        times = [time for log in logs.values() for time in log.times]
        return Counts(
            runs=len(logs),
            chunks=sum(len(log.seen) for log in logs.values()),
            attempts=sum(type == "start" for log in logs.values() for _, type, _ in log.seen),
            viewers=len(viewers.seen(next(iter(logs)))),
            hits=self._hits,
            refused=sum(worker.times_said("stopped writing") for worker in self._workers),
            wrong=wrong,
            span=max(times) - min(times),
        )

    def _save(self, viewers: Viewers, logs: dict[str, Log]) -> None:
        """Histories, one JSON line each, beside the processes' logs."""
        with (self._folder / "history.jsonl").open("w") as file, contextlib.suppress(BrokenPipeError):
            ended = [process.ended for process in self._processes()]
            print(json.dumps({"seed": self._seed, "faults": self._events, "ended": ended}), file=file)
            for run in self._runs:
                views = viewers.seen(run) | ({"log": logs[run].seen} if run in logs else {})
                for name, seen in views.items():
                    print(json.dumps({"run": run, "who": name, "saw": seen}), file=file)
        print(f"histories and logs: {self._folder}")

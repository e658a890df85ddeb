"""The capacity model: ``python benchmarks/scale.py [--of SYSTEM] [--results FILE] [--seed N]``.

Costs come from ``results.json`` (T4, T8, T10, footprint), never from here. A discrete-event simulation of worker, Redis
and gateway is first held against latencies that were measured, then gives those of fleets for 10 k to 10 M viewers.
Prints two tables; docs/capacity.md says what it leaves out.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import random
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

from figures import LOOM

US, MS = 1e-6, 1e-3
STAGES = ("worker", "Redis", "gateway")
BURST = 100
"""Runs of T8 that speak at the same moments."""
EVERY = 1.25
"""Seconds between two chunks of a run in T10."""

# --- simulation: processes that share cores, and take all that waits at once ------------------------------------------


@dataclass(eq=False)
class Core:
    """Runs one process at a time, each until it has nothing left of what it took."""

    ready: deque[Station] = field(default_factory=deque)
    running: bool = False
    busy: float = 0.0


@dataclass(eq=False)
class Station:
    """A process with one thread: waking up costs `wake`, each chunk `each` (seconds)."""

    core: Core
    wake: float
    each: float
    together: bool
    """What was taken at once leaves at once (one pipeline, one turn of an event loop), not one after the other."""
    waiting: list[Item] = field(default_factory=list)

    def took(self, n: int) -> float:
        return self.wake + n * self.each


@dataclass(frozen=True)
class Item:
    """A chunk: when it was said, and where it goes; what only fills a station up is not `counted`."""

    born: float
    route: tuple[Station, ...]
    counted: bool = True


class Simulation:
    """Latencies of the items that come, in simulated time. `hop`: seconds from one process to the next."""

    def __init__(self, hop: float) -> None:
        self._hop = hop
        self._events: list[tuple[float, int, Station, tuple[Item, ...], bool]] = []
        self._number = count()
        self.latencies: list[float] = []

    def run(self, items: Iterable[Item]) -> list[float]:
        for item in items:
            self._plan(item.born, item.route[0], (item,), over=False)
        while self._events:
            now, _, station, batch, over = heapq.heappop(self._events)
            if over:
                self._finish(now, station, batch)
            else:
                self._arrive(now, station, batch)
        return sorted(self.latencies)

    def _plan(self, at: float, station: Station, batch: tuple[Item, ...], *, over: bool) -> None:
        heapq.heappush(self._events, (at, next(self._number), station, batch, over))

    def _arrive(self, now: float, station: Station, batch: tuple[Item, ...]) -> None:
        if not station.waiting:
            station.core.ready.append(station)
        station.waiting += batch
        if not station.core.running:
            self._begin(now, station.core)

    def _begin(self, now: float, core: Core) -> None:
        station = core.ready.popleft()
        batch, station.waiting = tuple(station.waiting), []
        core.running = True
        core.busy += station.took(len(batch))
        self._plan(now + station.took(len(batch)), station, batch, over=True)

    def _finish(self, now: float, station: Station, batch: tuple[Item, ...]) -> None:
        for i, item in enumerate(batch):
            early = 0.0 if station.together else (len(batch) - 1 - i) * station.each
            self._leave(now - early, now, station, item)
        station.core.running = False
        if station.core.ready:
            self._begin(now, station.core)

    def _leave(self, left: float, now: float, station: Station, item: Item) -> None:
        at = left + self._hop
        onward = item.route[item.route.index(station) + 1 :]
        if onward:  # an event that lies in the past by less than a batch's time is taken now
            self._plan(max(at, now), onward[0], (item,), over=False)
        elif item.counted:
            self.latencies.append(at - item.born)


def quantile(ordered: list[float], q: float) -> float:
    return ordered[int(q * (len(ordered) - 1))]


def ticking(rng: random.Random, runs: int, every: float, seconds: float) -> Iterator[float]:
    """Each run speaks once in `every` seconds, at a moment of its own."""
    for _ in range(runs):
        at = rng.random() * every
        while at < seconds:
            yield at
            at += every


def at_random(rng: random.Random, rate: float, seconds: float) -> Iterator[float]:
    """Of so many runs that none matters (Poisson)."""
    at = rng.expovariate(rate) if rate else seconds
    while at < seconds:
        yield at
        at += rng.expovariate(rate)


# --- what was measured ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Point:
    """One load, as it was measured: milliseconds, and microseconds of CPU a chunk by stage."""

    name: str
    p50: float
    p99: float
    cpu: dict[str, float]


class Measured:
    """The medians of one system in ``results.json``. A figure that is not there ends the program, by name."""

    def __init__(self, results: dict[str, Any], system: str) -> None:
        self._results = results
        self._system = system

    def point(self, target: str, name: str, first: int = 0) -> Point:
        """Five figures from `first` on: p50, p99, and the CPU of the stages."""
        values = [self._at(target, first + i) for i in range(5)]
        return Point(name, values[0], values[1], dict(zip(STAGES, values[2:], strict=True)))

    def beside(self, target: str, what: str) -> float:
        """The figure whose name begins so."""
        for i, figure in enumerate(self._figures(target)):
            if figure["what"].startswith(what):
                return self._at(target, i)
        raise SystemExit(f"not measured: {target}, {what}: python benchmarks/run.py {target}")

    def _at(self, target: str, place: int) -> float:
        figures = self._figures(target)
        values = figures[place]["values"].get(self._system) if place < len(figures) else None
        if not values:
            raise SystemExit(f"not measured: {target} of {self._system}: python benchmarks/run.py {target}")
        return float(median(values))

    def _figures(self, target: str) -> list[dict[str, Any]]:
        if target not in self._results:
            raise SystemExit(f"not measured: {target}: python benchmarks/run.py {target}")
        figures: list[dict[str, Any]] = self._results[target]["figures"]
        return figures


@dataclass(frozen=True)
class Model:
    """Costs by stage, in seconds: of waking up, and of each chunk; and of a hop between two processes."""

    wake: dict[str, float]
    each: dict[str, float]
    hop: float
    together: frozenset[str]

    def stations(self, cores: tuple[Core, Core, Core], cpu: dict[str, float]) -> tuple[Station, ...]:
        """`cpu`: what a chunk costs alone, waking up included, where it was measured anew."""
        found = []
        for stage, core in zip(STAGES, cores, strict=True):
            scale = cpu[stage] * US / (self.wake[stage] + self.each[stage])
            found.append(Station(core, self.wake[stage] * scale, self.each[stage] * scale, stage in self.together))
        return tuple(found)

    def simulate(self, moments: Iterable[float], cpu: dict[str, float]) -> list[float]:
        """As measured: the gateway on a core of its own, worker and Redis on another."""
        shared = Core()
        route = self.stations((shared, shared, Core()), cpu)
        return Simulation(self.hop).run(Item(at, route) for at in sorted(moments))


def fitted(spread: Point, at_once: Point, seed: int, *, pipelined: bool) -> Model:
    """Waking up and a chunk's own cost, of what chunks cost that come alone and a hundred at once. One constant is
    fitted: the hop, kernel and wake-ups included, so that T8's median comes out."""
    wake, each = {}, {}
    for stage in STAGES:
        share = max(spread.cpu[stage] - at_once.cpu[stage], 0.0) * BURST / (BURST - 1)
        wake[stage], each[stage] = share * US, max(spread.cpu[stage] - share, 0.1) * US
    together = frozenset(STAGES[:2] if pipelined else STAGES[1:2])
    model = Model(wake, each, 0.0, together)
    without = quantile(model.simulate(ticking(random.Random(seed), 100, 0.1, 5.0), spread.cpu), 0.5)
    return replace(model, hop=max(spread.p50 * MS - without, 0.0) / len(STAGES))


# --- does it hold? ----------------------------------------------------------------------------------------------------


def held_against(model: Model, points: list[tuple[Point, list[float]]]) -> list[tuple[str, ...]]:
    """Rows: what was measured, and what the simulation says of it."""
    rows = []
    for point, moments in points:
        found = model.simulate(moments, point.cpu)
        rows.append(
            (point.name, f"{point.p50:.2f}", f"{quantile(found, 0.5) / MS:.2f}",
             f"{point.p99:.2f}", f"{quantile(found, 0.99) / MS:.2f}")
        )  # fmt: skip
    return rows


def held_against_theory(seed: int) -> str:
    """A queue whose mean is known (M/D/1; Pollaczek and Khinchine), as the simulation has it."""
    busy, service = 0.6, 20 * US
    station = Station(Core(), 0.0, service, together=False)
    moments = at_random(random.Random(seed), busy / service, 3.0)
    found = Simulation(0.0).run(Item(at, (station,)) for at in moments)
    known, mean = service * (1 + busy / 2 / (1 - busy)), sum(found) / len(found)
    return f"M/D/1, 60 % busy, service 20 µs: mean {known / US:.1f} µs by theory, {mean / US:.1f} simulated"


# --- fleets -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Workload:
    """What viewers look at. `kept`: seconds for which an ended run stays in Redis."""

    name: str
    viewers_per_run: float
    chunks_per_second: float
    run_seconds: float
    kept: float = 3600.0


WORKLOADS = (
    Workload("chat: a viewer a run, 20 chunks a second, 20 s", 1, 20.0, 20.0),
    Workload("feed: 100 viewers a run, a chunk a second, 10 min", 100, 1.0, 600.0),
)
VIEWERS = (10_000, 100_000, 1_000_000, 10_000_000)


@dataclass(frozen=True)
class Bounds:
    """How full a process may be: share of its core, connections of a gateway (`limits.CONNECTIONS`), bytes."""

    busy: float = 0.7
    viewers: int = 10_000
    runs: int = 5000
    shard: float = 16e9


@dataclass(frozen=True)
class Costs:
    """Seconds and bytes, of one thing each."""

    chunk: dict[str, float]
    extra_viewer: float
    extra_gateway: float
    renewal: dict[str, float]
    life: float
    open_run: float
    ended_run: float
    stored_chunk: float
    followed: float
    driven: float
    viewer: float
    connections: float
    renew_every: float = 10 / 3


def costs(measured: Measured, busiest: Point) -> Costs:
    kb = 1024.0
    return Costs(
        chunk={stage: busiest.cpu[stage] * US for stage in STAGES},
        extra_viewer=measured.beside("T4", "one source") * US,
        extra_gateway=measured.beside("footprint", "CPU of Redis to tell") * US,
        renewal={
            "Redis": measured.beside("footprint", "CPU of Redis while") * US,
            "worker": measured.beside("footprint", "CPU of the worker while") * US,
        },
        life=measured.beside("footprint", "CPU of Redis for a run") * US,
        open_run=measured.beside("footprint", "Redis memory of an open run") * kb,
        ended_run=measured.beside("footprint", "Redis memory of an ended run") * kb,
        stored_chunk=measured.beside("footprint", "Redis memory of 1,000 chunks that came one") * kb / 1000,
        followed=measured.beside("T10", "the same: the gateway's memory") * kb,
        driven=measured.beside("T10", "the same: the worker's memory") * kb,
        viewer=measured.beside("footprint", "gateway memory") * kb,
        connections=measured.beside("T10", "the same: the gateway's Redis"),
    )


@dataclass(frozen=True)
class Fleet:
    """Processes, and what each has to do."""

    workload: Workload
    viewers: int
    runs: float
    gateways: int
    workers: int
    shards: int
    spread: float
    """Gateways that follow one run."""
    queue: float
    """Share of one core that the queue takes, which is in one slot and so on one shard."""
    memory: float
    """Bytes in Redis, all shards."""
    gateway_memory: float
    worker_memory: float
    """Bytes beyond those of an idle process."""
    connections: float
    """Of one shard."""

    @property
    def chunks(self) -> float:
        return self.runs * self.workload.chunks_per_second


def sized(workload: Workload, viewers: int, cost: Costs, bounds: Bounds) -> Fleet:
    runs = viewers / workload.viewers_per_run
    chunks, starts = runs * workload.chunks_per_second, runs / workload.run_seconds
    gateways = _gateways(workload, viewers, runs, cost, bounds)
    spread = _spread(gateways, workload.viewers_per_run)
    works = chunks * cost.chunk["worker"] + runs / cost.renew_every * cost.renewal["worker"]
    workers = math.ceil(max(works / bounds.busy, runs / bounds.runs))
    queue = starts * cost.life + runs / cost.renew_every * cost.renewal["Redis"]
    said = workload.chunks_per_second * workload.run_seconds * cost.stored_chunk
    memory = runs * (cost.open_run + said / 2) + starts * workload.kept * (cost.ended_run + said)
    tells = chunks * (cost.chunk["Redis"] + (spread - 1) * cost.extra_gateway)
    shards = math.ceil(max((tells + queue) / bounds.busy, memory / bounds.shard))
    followed = runs * spread / gateways
    return Fleet(
        workload, viewers, runs, gateways, workers, shards, spread, queue, memory,
        gateway_memory=followed * cost.followed + (viewers / gateways - followed) * cost.viewer,
        worker_memory=runs / workers * cost.driven,
        connections=(gateways + workers) * cost.connections,
    )  # fmt: skip


def _gateways(workload: Workload, viewers: int, runs: float, cost: Costs, bounds: Bounds) -> int:
    """The fewest that are not too full; more gateways share fewer viewers of one run, so it is found by trying."""
    gateways = math.ceil(viewers / bounds.viewers)
    while _gateway_load(workload, viewers, runs, gateways, cost) > bounds.busy:
        gateways = math.ceil(gateways * 1.02)
    return gateways


def _gateway_load(workload: Workload, viewers: int, runs: float, gateways: int, cost: Costs) -> float:
    rate = workload.chunks_per_second / gateways
    followed = runs * _spread(gateways, workload.viewers_per_run)
    return rate * (followed * cost.chunk["gateway"] + (viewers - followed) * cost.extra_viewer)


def _spread(gateways: int, viewers: float) -> float:
    """Gateways on which so many viewers come to be, each on any."""
    return gateways * (1 - (1 - 1 / gateways) ** viewers)


def latency(fleet: Fleet, model: Model, cost: Costs, seed: int) -> list[float]:
    """Of chunks through one worker, one shard and one gateway of the fleet, each on a core of its own and as full as
    its others make it."""
    rng = random.Random(seed)
    stations = model.stations((Core(), Core(), Core()), {stage: cost.chunk[stage] / US for stage in STAGES})
    _, redis, gateway = stations
    redis.each += (fleet.spread - 1) * cost.extra_gateway
    followed = fleet.chunks * fleet.spread / fleet.gateways
    delivered = fleet.viewers * fleet.workload.chunks_per_second / fleet.gateways
    gateway.each += (delivered / followed - 1) * cost.extra_viewer
    rates = (fleet.chunks / fleet.workers, fleet.chunks / fleet.shards, followed)
    tagged = min(rates) / 10
    seconds = min(2.0, 60_000 / sum(rates))
    items = [Item(at, stations) for at in at_random(rng, tagged, seconds)]
    for station, rate in zip(stations, rates, strict=True):
        items += [Item(at, (station,), counted=False) for at in at_random(rng, rate - tagged, seconds)]
    return Simulation(model.hop).run(sorted(items, key=lambda item: item.born))


# --- the program ------------------------------------------------------------------------------------------------------


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) if not i else cell.rjust(width) for i, (cell, width) in
                  enumerate(zip(line, widths, strict=True)))
        for line in lines
    )  # fmt: skip


def row(fleet: Fleet, found: list[float]) -> tuple[str, ...]:
    return (
        f"{fleet.viewers:,}", f"{fleet.runs:,.0f}", f"{fleet.chunks:,.0f}", f"{fleet.gateways:,}", f"{fleet.workers:,}",
        f"{fleet.shards:,}", f"{fleet.queue:.0%}", f"{fleet.memory / 1e9:,.1f}", f"{fleet.gateway_memory / 1e6:,.0f}",
        f"{fleet.worker_memory / 1e6:,.0f}",
        f"{fleet.connections:,.0f}", f"{quantile(found, 0.5) / MS:.2f}", f"{quantile(found, 0.99) / MS:.2f}",
    )  # fmt: skip


HELD = ("load, as measured here", "p50 ms", "simulated", "p99 ms", "simulated")
FLEET = (
    "viewers", "runs", "chunks/s", "gateways", "workers", "shards", "queue's core", "Redis GB", "MB a gateway",
    "MB a worker", "connections a shard", "p50 ms", "p99 ms",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--of", default=LOOM, help="a system as the results name it")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results.json")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    measured = Measured(json.loads(arguments.results.read_text()), arguments.of)
    seed = arguments.seed

    spread = measured.point("T8", "1,000 chunks a second, spread (fitted: p50)")
    at_once = measured.point("T8", "the same, 100 at once", first=5)
    runs = round(measured.beside("T10", "the same: chunks that") * EVERY, -2)
    busiest = measured.point("T10", f"{runs:,.0f} runs, {runs / EVERY:,.0f} chunks a second")
    model = fitted(spread, at_once, seed, pipelined=arguments.of == LOOM)
    rng = random.Random(seed)
    loads = [
        (spread, list(ticking(rng, 100, 0.1, 10.0))),
        (at_once, [i / 10 for i in range(100) for _ in range(BURST)]),
        (busiest, list(ticking(rng, int(runs), EVERY, 5.0))),
    ]
    print(held_against_theory(seed), end="\n\n")
    print(table(HELD, held_against(model, loads)))
    if arguments.of != LOOM:
        return
    cost = costs(measured, busiest)
    for workload in WORKLOADS:
        fleets = [sized(workload, viewers, cost, Bounds()) for viewers in VIEWERS]
        rows = [row(fleet, latency(fleet, model, cost, seed)) for fleet in fleets]
        print(f"\n{workload.name}\n{table(FLEET, rows)}")


if __name__ == "__main__":
    main()

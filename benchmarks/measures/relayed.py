"""T8 and T10: runs in a worker, Redis between, a gateway, event streams; Loom, the loop that one writes by hand, and
npm's resumable-stream. All have the same processes and answer the same requests.

The gateway has the server's core; Redis, worker and load client the other.
"""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from figures import LOOM, Figure
from harness import CLIENT_CORE, Held, Load, Server, get, post, server
from npm import Npm
from redisserver import Redis, redis_server

FASTAPI, SSE_STARLETTE, RESUMABLE = "XADD/XREAD, FastAPI SSE", "XADD/XREAD, sse-starlette", "resumable-stream"
STARTED_AT_ONCE = 200
SHARE = {FASTAPI: 0.2}
"""Of T10's load, for whom it is too much: with all of it this gateway is busy connecting to Redis, for minutes."""


@dataclass(frozen=True)
class System:
    """Two commands, for a worker and a gateway, that find their store at REDIS_URL or by an argument."""

    name: str
    worker: tuple[str, ...]
    gateway: tuple[str, ...]


def systems(store: str, npm: Npm) -> list[System]:
    """Those that are here."""
    loom = (sys.executable, "loom_server.py", store)
    by_hand = (sys.executable, "redis_worker.py")
    found = [
        System(LOOM, (*loom, "worker"), (*loom, "gateway")),
        System(FASTAPI, by_hand, (sys.executable, "serve.py", "redis_fastapi")),
        System(SSE_STARLETTE, by_hand, (sys.executable, "serve.py", "redis_sse_starlette")),
    ]
    if npm.script:
        found.append(System(RESUMABLE, (*npm.script, "worker"), (*npm.script, "gateway")))
    return found


class Running:
    """A worker, a Redis and a gateway of one system."""

    def __init__(self, load: Load, redis: Redis, worker: Server, gateway: Server) -> None:
        self._load = load
        self.redis = redis
        self.worker = worker
        self.gateway = gateway

    def start(self, count: int, actor: str, argument: float) -> list[bytes]:
        """Start runs; the requests that follow them."""
        group = uuid.uuid4().hex[:8]
        ids = [f"{group}-{i}" for i in range(count)]
        bodies = [post("/runs", json.dumps({"actor": actor, "input": argument, "id": id})) for id in ids]
        for i in range(0, count, STARTED_AT_ONCE):
            some = bodies[i : i + STARTED_AT_ONCE]
            self._load.drain(self.gateway.port, len(some), some)
        return [get(f"/runs/{id}/events") for id in ids]

    @contextmanager
    def following(self, requests: list[bytes], viewers: int | None = None) -> Iterator[Held]:
        with self._load.hold(self.gateway.port, viewers or len(requests), requests) as held:
            yield held

    def finish(self, requests: list[bytes]) -> int:
        """Read streams to their ends; how many events they had."""
        return sum(
            int(self._load.drain(self.gateway.port, len(some), some)["events"])
            for some in (requests[i : i + STARTED_AT_ONCE] for i in range(0, len(requests), STARTED_AT_ONCE))
        )

    def measure(self, held: Held, seconds: float) -> dict[str, float]:
        """Milliseconds from a chunk's stamp to its arrival; microseconds of CPU a chunk, of each process."""
        answer: dict[str, Any] = held.measure(seconds, self.gateway, self.worker, self.redis)
        chunks = max(answer["stamped"], 1)
        worker, redis = answer["others"]
        return {
            "rate": answer["stamped"] / answer["seconds"],
            "p50": answer["p50"] * 1e3,
            "p99": answer["p99"] * 1e3,
            "gateway": answer["cpu"] / chunks * 1e6,
            "worker": worker / chunks * 1e6,
            "Redis": redis / chunks * 1e6,
        }


@contextmanager
def running(load: Load, kind: str, store: str | None, npm: Npm, name: str) -> Iterator[Running]:
    """The system of that name, on a Redis server of its own. `store`: Loom's, if it is another place."""
    with redis_server(kind, CLIENT_CORE) as redis:
        system = next(one for one in systems(store or redis.url, npm) if one.name == name)
        place = ("env", f"REDIS_URL={redis.url}")
        with (
            server(*place, *system.worker, core=CLIENT_CORE) as worker,
            server(*place, *system.gateway) as gateway,
        ):
            yield Running(load, redis, worker, gateway)


class Relayed:
    """The measures. `rounds` of each, `quick`: a tenth of the work."""

    def __init__(self, load: Load, rounds: int, kind: str, store: str | None, npm: Npm, *, quick: bool) -> None:
        self._load = load
        self._rounds = rounds
        self._kind = kind
        self._store = store
        self._seconds = 2.0 if quick else 5.0
        self._followed = 500 if quick else 5000
        self._npm = npm

    @contextmanager
    def running(self, name: str) -> Iterator[Running]:
        with running(self._load, self._kind, self._store, self._npm, name) as found:
            yield found

    def names(self) -> list[str]:
        return [system.name for system in systems("", self._npm)]

    # --- T8: 100 runs, 1,000 chunks a second ---

    def latency(self) -> list[Figure]:
        """Spread evenly; and all 100 at the same moments, ten times a second, which is as bad as it gets."""
        spread: dict[str, dict[str, list[float]]] = {}
        at_once: dict[str, dict[str, list[float]]] = {}
        for _ in range(self._rounds):
            for name in self.names():
                _keep(spread, name, self._relayed(name, "ticks", 100, 0.1))
                if name != SSE_STARLETTE:
                    _keep(at_once, name, self._relayed(name, "bursts", 100, 0.1))
        figures = _figures("T8", "worker, Redis, gateway, 1,000 chunks a second of 100 runs", spread)
        figures[0].within(1.0, FASTAPI, "≤ FastAPI's")
        figures[1].within(1.5, FASTAPI, "≤ 1.5 of FastAPI's")
        return [*figures, *_figures("T8", "the same, all 100 runs at the same moments", at_once)]

    def _relayed(self, name: str, actor: str, runs: int, every: float) -> dict[str, float]:
        with self.running(name) as found, found.following(found.start(runs, actor, every)) as held:
            held.measure(1.0, found.gateway)
            return found.measure(held, self._seconds)

    # --- T10: many followed runs ---

    def followed(self) -> list[Figure]:
        values: dict[str, dict[str, list[float]]] = {}
        for _ in range(self._rounds):
            for name in self.names():
                if name != SSE_STARLETTE:
                    _keep(values, name, self._many(name))
        what = f"{self._followed:,} followed runs on one gateway, {self._followed * 0.8:,.0f} chunks a second"
        figures = _figures("T10", what, values)
        figures[0].at_most(0.5, "≤ 0.5 ms")
        connections = Figure("T10", "the same: the gateway's Redis connections", "", values["connections"])
        connections.at_most(4, "≤ 4")
        return [
            *figures,
            Figure("T10", "the same: chunks that arrived", "a second", values["rate"]),
            connections,
            Figure("T10", "the same: the gateway's memory", "kB a followed run", values["memory"]),
            Figure("T10", "the same: the worker's memory", "kB a run", values["driven"]),
        ]

    def _many(self, name: str) -> dict[str, float]:
        with self.running(name) as found:
            with found.following(found.start(10, "ticks", 1.25)) as held:
                held.measure(1.0, found.gateway)
            runs = int(self._followed * SHARE.get(name, 1))
            before, worker = found.gateway.memory(), found.worker.memory()
            with found.following(found.start(runs, "ticks", 1.25)) as held:
                held.measure(2.0, found.gateway)
                answer = found.measure(held, self._seconds)
                answer["connections"] = found.gateway.connected_to(found.redis.port)
                answer["memory"] = (found.gateway.memory() - before) / runs / 1024
                answer["driven"] = (found.worker.memory() - worker) / runs / 1024
                return answer


def _keep(values: dict[str, dict[str, list[float]]], name: str, answer: dict[str, float]) -> None:
    for what, value in answer.items():
        values.setdefault(what, {}).setdefault(name, []).append(value)


def _figures(target: str, what: str, values: dict[str, dict[str, list[float]]]) -> list[Figure]:
    latency = [
        Figure(target, f"{what}: added latency, p50", "ms", values["p50"]),
        Figure(target, "the same: added latency, p99", "ms", values["p99"]),
    ]
    return latency + [
        Figure(target, f"the same: CPU of {named}", "µs of CPU a chunk", values[who])
        for who, named in (("worker", "the worker"), ("Redis", "Redis"), ("gateway", "the gateway"))
    ]

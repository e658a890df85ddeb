"""T1 to T5 and the latency over a socket: event streams of Loom and its peers, each on a server of its own."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from figures import LOOM, Figure
from harness import Load, Server, get, node, post, server

RAW, NODE = "raw ASGI", "Node"
STARLETTE, SSE_STARLETTE, FASTAPI = "Starlette", "sse-starlette", "FastAPI SSE"


@dataclass(frozen=True)
class Peer:
    """A server, how to ask it for a stream, and how much of the work it is given (slow ones less: they take longer)."""

    name: str
    command: tuple[str, ...]
    share: float = 1.0

    def request(self, kind: str, argument: float) -> bytes:
        if self.name == LOOM:
            return get(f"/actors/{kind}/stream?input={argument}&detach=1")
        return get(f"/{kind}/{argument}")


def peers() -> list[Peer]:
    """Those that are here."""
    python = (sys.executable, "serve.py")
    found = [
        Peer(LOOM, (sys.executable, "loom_server.py", "memory://")),
        Peer(RAW, (*python, "raw_asgi")),
        Peer(STARLETTE, (*python, "starlette_streaming")),
        Peer(SSE_STARLETTE, (*python, "sse_starlette_app"), 0.3),
        Peer(FASTAPI, (*python, "fastapi_app"), 0.1),
    ]
    return [*found, Peer(NODE, ("node", "node.mjs"))] if node() else found


class Streams:
    """The measures. `rounds` of each, `quick`: a tenth of the work."""

    def __init__(self, load: Load, rounds: int, *, quick: bool) -> None:
        self._load = load
        self._rounds = rounds
        self._scale = 0.1 if quick else 1.0
        self._seconds = 2.0 if quick else 5.0
        self._viewers = 200 if quick else 2000

    def _each_round(self, names: set[str], measure: Callable[[Peer], float]) -> dict[str, list[float]]:
        """A value a round of each of these peers, one after the other within a round."""
        values: dict[str, list[float]] = {}
        for _ in range(self._rounds):
            for peer in peers():
                if peer.name in names:
                    values.setdefault(peer.name, []).append(measure(peer))
        return values

    # --- T1, T2: CPU time of an event ---

    def ready(self) -> list[Figure]:
        def measure(peer: Peer) -> float:
            return self._cpu(peer, "ready", connections=1, events=int(400_000 * self._scale * peer.share))

        everyone = {LOOM, RAW, STARLETTE, SSE_STARLETTE, FASTAPI, NODE}
        values = self._each_round(everyone, measure)
        figure = Figure("T1", "SSE, one stream, its producer always ready", "µs of server CPU an event", values)
        figure.within(0.8, NODE, "≤ 0.8 of Node's")
        figure.within(1 / 12, SSE_STARLETTE, "≤ 1/12 of sse-starlette's")
        figure.within(1 / 40, FASTAPI, "≤ 1/40 of FastAPI's")
        return [figure]

    def turns(self) -> list[Figure]:
        def measure(peer: Peer) -> float:
            return self._cpu(peer, "turns", connections=100, events=int(3000 * self._scale * peer.share))

        values = self._each_round({LOOM, RAW, STARLETTE, SSE_STARLETTE, FASTAPI, NODE}, measure)
        figure = Figure("T2", "SSE, 100 streams, an event each loop turn", "µs of server CPU an event", values)
        figure.within(1.4, RAW, "≤ 1.4 of raw ASGI's")
        figure.within(0.7, SSE_STARLETTE, "≤ 0.7 of sse-starlette's")
        figure.within(0.3, FASTAPI, "≤ 0.3 of FastAPI's")
        return [figure]

    def _cpu(self, peer: Peer, kind: str, *, connections: int, events: int) -> float:
        """Microseconds of CPU time an event. A tenth goes before, unmeasured: V8 compiles what runs often."""
        with server(*peer.command) as process:
            self._load.drain(process.port, connections, [peer.request(kind, max(events // 10, 10))])
            before = process.cpu()
            answer = self._load.drain(process.port, connections, [peer.request(kind, events)])
            cpu = process.cpu() - before
        if answer["events"] < connections * events:
            raise SystemExit(f"{peer.name}: {answer['events']} events of {connections * events}")
        return cpu / (connections * events) * 1e6

    # --- T3: idle viewers ---

    def idle(self) -> list[Figure]:
        memory = self._each_round({LOOM, RAW, STARLETTE, SSE_STARLETTE, FASTAPI, NODE}, self._memory)
        figure = Figure("T3", f"{self._viewers} idle viewers", "kB each", memory)
        figure.at_most(16, "≤ 16 kB")
        tails: dict[str, list[float]] = {}
        cpu: dict[str, list[float]] = {}
        for _ in range(self._rounds):
            for peer in peers():
                if peer.name in (LOOM, RAW, NODE):
                    p99, used = self._ticking(peer)
                    tails.setdefault(peer.name, []).append(p99)
                    cpu.setdefault(peer.name, []).append(used)
        latency = Figure("T3", f"{self._viewers} streams of an event a second: added latency, p99", "ms", tails)
        latency.within(1.5, RAW, "≤ 1.5 of raw ASGI's")
        return [figure, latency, Figure("T3", "the same: CPU", "µs of server CPU an event", cpu)]

    def _memory(self, peer: Peer) -> float:
        """Of Loom the viewers of 100 runs; a peer's stream and its source are one thing."""
        with server(*peer.command) as process:
            if peer.name == LOOM:
                requests = self._runs(process, 100, every=3600)
            else:
                requests = [peer.request("ticks", 3600)]
                self._load.first(process.port, 1, requests)
            before = process.memory()
            with self._load.hold(process.port, self._viewers, requests) as held:
                held.measure(0.5, process)
                return (process.memory() - before) / self._viewers / 1024

    def _ticking(self, peer: Peer) -> tuple[float, float]:
        """Milliseconds at p99 and microseconds of CPU. Of Loom as many runs, too, each with its one viewer."""
        with (
            server(*peer.command) as process,
            self._load.hold(process.port, self._viewers, [peer.request("ticks", 1)]) as held,
        ):
            held.measure(1.0, process)  # the first, random part of a second
            answer = held.measure(self._seconds, process)
        return answer["p99"] * 1e3, answer["cpu"] / answer["events"] * 1e6

    def _runs(self, process: Server, count: int, *, every: float) -> list[bytes]:
        """Start runs; the requests that follow them."""
        bodies = [json.dumps({"actor": "ticks", "input": every, "id": f"r{i}"}) for i in range(count)]
        self._load.drain(process.port, count, [post("/runs", body) for body in bodies])
        return [get(f"/runs/r{i}/events") for i in range(count)]

    # --- T4: one run, many viewers ---

    def fanout(self) -> list[Figure]:
        cpu: dict[str, list[float]] = {}
        tails: dict[str, list[float]] = {}
        for _ in range(self._rounds):
            for peer in peers():
                if peer.name in (LOOM, RAW, SSE_STARLETTE, NODE):
                    with self._viewing(peer) as (process, requests):
                        used, p99 = self._fanned(process, requests)
                    cpu.setdefault(peer.name, []).append(used)
                    tails.setdefault(peer.name, []).append(p99)
        figure = Figure("T4", "one source, 1,000 viewers, 20 events a second", "µs of server CPU a delivery", cpu)
        figure.at_most(10, "≤ 10 µs")
        latency = Figure("T4", "the same: added latency, p99", "ms", tails)
        latency.within(1.0, NODE, "below Node's")
        return [figure, latency]

    @contextmanager
    def _viewing(self, peer: Peer) -> Iterator[tuple[Server, list[bytes]]]:
        with server(*peer.command) as process:
            if peer.name == LOOM:
                yield process, self._runs(process, 1, every=0.05)
            else:
                yield process, [peer.request("view", 0.05)]

    def _fanned(self, process: Server, requests: list[bytes]) -> tuple[float, float]:
        with self._load.hold(process.port, 1000, requests) as held:
            held.measure(0.5, process)
            answer = held.measure(self._seconds, process)
        return answer["cpu"] / answer["events"] * 1e6, answer["p99"] * 1e3

    # --- T5: the first chunk ---

    def first(self) -> list[Figure]:
        def measure(peer: Peer) -> float:
            request = post("/ticks/3600") if peer.name != LOOM else post("/actors/ticks/stream", '{"input": 3600}')
            with server(*peer.command) as process:
                self._load.first(process.port, 100, [request])
                return self._load.first(process.port, int(1000 * self._scale), [request])["p50"] * 1e3

        values = self._each_round({LOOM, RAW, STARLETTE, SSE_STARLETTE, FASTAPI, NODE}, measure)
        figure = Figure("T5", "POST on a new connection to the first event (of Loom: a new run), p50", "ms", values)
        figure.at_most(1.0, "≤ 1 ms")
        return [figure]

    # --- latency over a socket ---

    def latency(self) -> list[Figure]:
        """Of one stream, a chunk every 50 ms."""
        values: dict[str, list[float]] = {}
        for _ in range(self._rounds):
            for peer in peers():
                if peer.name in (LOOM, RAW, NODE):
                    with (
                        server(*peer.command) as process,
                        self._load.hold(process.port, 1, [peer.request("ticks", 0.05)]) as held,
                    ):
                        values.setdefault(peer.name, []).append(held.measure(2 * self._seconds, process)["p99"] * 1e3)
        figure = Figure("latency", "SSE, one stream, an event every 50 ms: added latency, p99", "ms", values)
        figure.at_most(20, "≤ 20 ms")
        return [figure]

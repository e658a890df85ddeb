"""What things take on Redis: memory of runs, chunks and viewers, CPU of leases, of a run's life, of telling one gateway
more. The capacity model (`scale.py`) is fed with these, and with T8's and T10's."""

from __future__ import annotations

import time
from collections.abc import Callable

import redis
from figures import LOOM, Figure
from harness import CLIENT_CORE
from redisserver import redis_server

from measures.relayed import FASTAPI, RESUMABLE, Relayed, Running

LEASE_PERIOD = 10 / 3
"""Seconds between two renewals of a claim, by default."""
SETTLE = 1.2
"""Seconds in which Redis counts all its connections' memory."""
FEW = 300
"""Commands in that time: what waits, and polls while it does, is not counted as work."""
PAYLOAD = b"x" * 200


class Footprint:
    """The measures. Loom and, where it stores something too, the loop by hand."""

    def __init__(self, relayed: Relayed, rounds: int, kind: str, *, quick: bool) -> None:
        self._relayed = relayed
        self._rounds = rounds
        self._kind = kind
        self._runs = 200 if quick else 2000
        self._chunks = 20 if quick else 200
        self._seconds = LEASE_PERIOD if quick else 2 * LEASE_PERIOD

    def measure(self) -> list[Figure]:
        values: dict[str, dict[str, list[float]]] = {}

        def keep(name: str, measured: dict[str, float]) -> None:
            for what, value in measured.items():
                values.setdefault(what, {}).setdefault(name, []).append(value)

        parts: list[Callable[[str], dict[str, float]]] = [self._open, self._viewers, self._life, self._stored]
        for _ in range(self._rounds):
            for name in (LOOM, FASTAPI):
                for part in parts:
                    keep(name, part(name))
            if RESUMABLE in self._relayed.names():
                keep(RESUMABLE, self._viewers(RESUMABLE))
            keep("PUBLISH", self._told())
        values["told"][LOOM] = values["told"].pop("PUBLISH")
        return [Figure("footprint", what, unit, values[key]) for key, what, unit in ROWS]

    def _open(self, name: str) -> dict[str, float]:
        """Runs that said one chunk and are silent: Redis's memory, and what keeping their leases costs, beyond what
        both processes do without a run."""
        with self._relayed.running(name) as found:
            found.finish(found.start(10, "ready", 1))
            idle = self._spent(found)
            before = found.redis.stored()
            with found.following(found.start(self._runs, "ticks", 3600)[-10:]) as held:
                held.measure(1.0, found.gateway)
            time.sleep(SETTLE)
            spent = [busy - base for busy, base in zip(self._spent(found), idle, strict=True)]
            memory = (found.redis.stored() - before) / self._runs
        renewals = self._runs * self._seconds / LEASE_PERIOD
        return {"open": memory / 1024, "renewal": spent[0] / renewals * 1e6, "renewing": spent[1] / renewals * 1e6}

    def _spent(self, found: Running) -> list[float]:
        """CPU seconds of Redis and the worker in a while."""
        used = [process.cpu() for process in (found.redis, found.worker)]
        time.sleep(self._seconds)
        return [process.cpu() - start for process, start in zip((found.redis, found.worker), used, strict=True)]

    def _viewers(self, name: str) -> dict[str, float]:
        """As many viewers as runs, of 100 silent runs: the gateway's memory."""
        with self._relayed.running(name) as found:
            requests = found.start(100, "ticks", 3600)
            with found.following(requests) as held:
                held.measure(0.5, found.gateway)
            before, used = found.gateway.memory(), found.redis.used()
            with found.following(requests, self._runs) as held:
                held.measure(0.5, found.gateway)
                memory = (found.gateway.memory() - before) / self._runs
                return {"viewer": memory / 1024, "watched": (found.redis.used() - used) / self._runs / 1024}

    def _life(self, name: str) -> dict[str, float]:
        """Runs of one chunk, from POST to their end: Redis's CPU, and what is kept of one."""
        with self._relayed.running(name) as found:
            found.finish(found.start(10, "ready", 1))
            self._quiet(found)
            before, used = found.redis.stored(), found.redis.cpu()
            requests = found.start(self._runs, "ready", 1)
            found.finish(requests[-1:])
            self._quiet(found)
            spent = found.redis.cpu() - used
            return {"life": spent / self._runs * 1e6, "ended": (found.redis.stored() - before) / self._runs / 1024}

    def _stored(self, name: str) -> dict[str, float]:
        """A run's chunks that came one by one, and one that was always ready: Redis's memory per 1,000."""
        with self._relayed.running(name) as found:
            found.finish(found.start(10, "ready", 1))
            singly = self._kept(found, 50, "paced", self._chunks)
            batched = self._kept(found, 50, "ready", 50 * self._chunks)
        return {"singly": singly, "batched": batched}

    def _kept(self, found: Running, runs: int, actor: str, chunks: int) -> float:
        """Kilobytes per 1,000 chunks, a run's own left out."""
        memory = []
        for n in (1, 1, chunks + 1):  # the first also makes tables larger that all runs share
            before = found.redis.stored()
            found.finish(found.start(runs, actor, n))
            self._quiet(found)
            memory.logs.append(found.redis.stored() - before)
        return (memory[2] - memory[1]) / runs / chunks * 1000 / 1024

    @staticmethod
    def _quiet(found: Running) -> None:
        """Until Redis has had little to do but our questions for a while, and has counted its connections."""
        last = count = _commands(found)
        while count == last or count >= last + FEW:
            time.sleep(SETTLE)
            last, count = count, _commands(found)

    def _told(self) -> dict[str, float]:
        """PUBLISH of 200 bytes to 32 subscribers, one message after the other: Redis's CPU for each."""
        messages, subscribers = 2000, 32
        with redis_server(self._kind, CLIENT_CORE) as server:
            listening = [server.client.pubsub() for _ in range(subscribers)]
            for one in listening:
                one.subscribe("c")
                one.get_message(timeout=1)
            spent = []
            for channel in ("nobody", "c"):
                before = server.cpu()
                for _ in range(messages):
                    _publish(server.client, channel)
                spent.append(server.cpu() - before)
            for one in listening:
                one.close()
        return {"told": (spent[1] - spent[0]) / messages / subscribers * 1e6}


def _publish(client: redis.Redis, channel: str) -> None:
    client.publish(channel, PAYLOAD)


def _commands(found: Running) -> int:
    info: dict[str, int] = found.redis.client.info("stats")  # type: ignore[assignment]
    return info["total_commands_processed"]


ROWS = (
    ("open", "Redis memory of an open run that said one chunk", "kB"),
    ("ended", "Redis memory of an ended run that said one chunk", "kB"),
    ("singly", "Redis memory of 1,000 chunks that came one by one", "kB"),
    ("batched", "Redis memory of 1,000 chunks of a run that is always ready", "kB"),
    ("viewer", "gateway memory, viewers of 100 silent runs", "kB a viewer"),
    ("watched", "Redis memory for the same", "kB a viewer"),
    ("life", "CPU of Redis for a run of one chunk, from start to end", "µs of CPU a run"),
    ("renewal", "CPU of Redis while runs are silent (leases, waiting viewers)", "µs of CPU a run and 3.3 s"),
    ("renewing", "CPU of the worker while runs are silent", "µs of CPU a run and 3.3 s"),
    ("told", "CPU of Redis to tell one gateway more of a chunk", "µs of CPU a gateway"),
)

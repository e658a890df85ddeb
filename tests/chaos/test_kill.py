"""kill -9 and SIGSTOP of servers and workers while viewers watch: nothing lost, nothing twice, every run ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from pathlib import Path

import pytest

import loom
from tests.mortal import free_port

from .checker import attempts, check_log
from .harness import Follower, Process, RawViewer, Seen, follow_http, read_log
from .places import SqlitePlace

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(400)]

KILLS = 30
CHUNKS = 300
RUNS = 3


def processes(mode: str, url: str, port: int, tmp: Path) -> list[Process]:
    serve = ["serve", "app:app", "--store", url, "--port", str(port), "--lease", "1"]
    if mode == "together":
        return [Process(*serve, log=tmp / "serve.log")]
    worker = ["worker", "app:app", "--store", url, "--lease", "1"]
    return [Process(*serve, "--no-worker", log=tmp / "serve.log"), Process(*worker, log=tmp / "worker.log")]


class Round:
    """Some runs, each watched by three viewers until it has ended."""

    def __init__(self, store: str, url: str, port: int, runs: list[str]) -> None:
        self.runs = runs
        self.over_http: dict[str, Seen] = {run: [] for run in runs}
        self.raw = {run: RawViewer(port, run) for run in runs}
        self.apart = Follower(store, runs)
        self.apart.close()
        self._watching = asyncio.gather(
            *(follow_http(url, run, self.over_http[run]) for run in runs),
            *(viewer.follow() for viewer in self.raw.values()),
            self.apart.follow(),
        )

    async def wait(self, timeout: float) -> None:
        async with asyncio.timeout(timeout):
            await self._watching

    async def heard(self, least: int) -> None:
        """Until the never-killed viewer has seen `least` more chunks, or everything has ended."""
        target = self._count() + least
        while self._count() < target and not self.apart.ended:
            self.apart.news.clear()
            await self.apart.news.wait()

    def _count(self) -> int:
        return sum(map(len, self.apart.seen.values()))


async def start(store: str, seed: int, number: int) -> list[str]:
    async with loom.connect(store) as client:
        return [(await client.start("count", {"n": CHUNKS}, id=f"r{seed}-{number}-{i}")).id for i in range(RUNS)]


@pytest.mark.parametrize("mode", ["together", "apart"])
async def test_kill_9_at_random_moments_loses_and_repeats_nothing(mode: str, tmp_path: Path) -> None:
    seed = int(os.environ.get("LOOM_CHAOS_SEED", random.randrange(10**6)))
    print(f"seed {seed} (LOOM_CHAOS_SEED repeats it)")
    dice = random.Random(seed)
    path = tmp_path / "runs.db"
    store, port = f"sqlite:///{path}", free_port()
    targets = processes(mode, store, port, tmp_path)
    url = f"http://127.0.0.1:{port}"
    rounds: list[Round] = []
    hits = 0
    try:
        for target in targets:
            await target.start()
        while hits < KILLS:
            current = Round(store, url, port, await start(store, seed, len(rounds)))
            rounds.append(current)
            while hits < KILLS and not current.apart.ended:
                await current.heard(dice.randrange(1, 60))
                if current.apart.ended:
                    break
                await asyncio.sleep(dice.uniform(0, 0.02))  # the random moment itself
                target = dice.choice(targets)
                await target.kill()
                hits += 1
                await target.start()
            await current.wait(120)
    finally:
        for target in targets:
            await target.stop()
    begun = 0
    for one in rounds:
        for run in one.runs:
            log = await read_log(store, run)
            assert not check_log(log, CHUNKS)
            begun += len(attempts(log))
            assert one.over_http[run] == log
            assert one.raw[run].seen == log
            assert one.apart.seen[run] == log
    print(f"{hits} kills hit; {len(rounds) * RUNS} runs, {begun} attempts")
    assert hits >= KILLS
    assert begun > len(rounds) * RUNS, "no kill hit a running run: this proved nothing"


async def test_a_worker_stopped_beyond_its_lease_writes_nothing_late(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    store = f"sqlite:///{path}"
    zombie = Process("zombie.py", store, "10", log=tmp_path / "zombie.log")
    heir = Process("worker", "app:app", "--store", store, "--lease", "1", log=tmp_path / "heir.log")
    try:
        await zombie.start()
        async with loom.connect(store) as client:
            run = await client.start("count", {"n": 400})
            chunks = run.chunks()
            while (await anext(chunks)).seq < 20:
                pass
            await SqlitePlace(path).stop(zombie)
            await heir.start()
            async for chunk in chunks:
                if chunk.type == "start":  # taken over
                    assert chunk.data["attempt"] == 2
                    break
            zombie.signal(signal.SIGCONT)
            with contextlib.suppress(StopAsyncIteration):
                while True:
                    await anext(chunks)
        log = await read_log(store, run.id)
        assert not check_log(log, 400)
        assert attempts(log) == [1, 2]
        await zombie.said("stopped writing")
    finally:
        await zombie.stop()
        await heir.stop()

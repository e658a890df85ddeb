"""SIGTERM to a worker: what continues goes to another one at once, what cannot is finished, and no viewer notices."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

import loom
from tests.mortal import free_port
from tests.servers.servers import Servers

from .checker import attempts, check_log, check_view
from .harness import Follower, Log, Process, RawViewer, read_logs

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

LEASE = 30.0
"""So long that nobody takes anything over by himself."""
AT_ONCE = 3.0
"""Seconds, of a busy machine; a tenth of the lease."""
CONTINUING = [f"continuing-{i}" for i in range(5)]
OTHERS = [f"other-{i}" for i in range(3)]
N = 300
"""Chunks of a run. It says no more than some before it is let go on: no machine is so slow that it ends too early."""


@pytest.fixture
def store(request: pytest.FixtureRequest, tmp_path: Path, servers: Servers) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'runs.db'}"
    return servers.durable(request.param).start().url()


def worker(store: str, log: Path) -> Process:
    return Process("worker", "app:app", "--store", store, "--lease", f"{LEASE:g}", "--concurrency", "20", log=log)


@pytest.mark.parametrize("store", ["sqlite", "valkey", "redis7"], indirect=True)
async def test_a_worker_that_is_told_to_stop_hands_over_and_finishes(store: str, tmp_path: Path) -> None:
    port, gate = free_port(), tmp_path / "gate"
    leaving, heir = worker(store, tmp_path / "leaving.log"), worker(store, tmp_path / "heir.log")
    gateway = Process("serve", "app:app", "--store", store, "--port", str(port), "--no-worker", log=tmp_path / "g.log")
    processes = [leaving, heir, gateway]
    runs = [*CONTINUING, *OTHERS]
    apart = Follower(store, runs)
    apart.close()
    over_http = {run: RawViewer(port, run) for run in runs}
    try:
        for process in (leaving, gateway):
            await process.start()
        await leaving.said("runs at a time")
        async with loom.connect(store) as client:
            for run in runs:
                actor = "count" if run in CONTINUING else "once"
                await client.start(actor, {"n": N, "gate": str(gate)}, id=run)
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            group.create_task(apart.follow())
            for viewer in over_http.values():
                group.create_task(viewer.follow())
            await all_speak(apart)
            await heir.start()
            await heir.said("runs at a time")
            leaving.signal(signal.SIGTERM)
            await all_begin_again(apart)
            gate.touch()
            assert await leaving.wait() == 0
        logs = await read_logs(store, runs)
    finally:
        for process in processes:
            await process.stop()
    for run in runs:
        log = logs[run].seen
        assert not check_log(log, N)
        assert attempts(log) == ([1, 2] if run in CONTINUING else [1])
        assert not check_view(apart.seen[run], log)
        assert not check_view(over_http[run].seen, log)
        assert over_http[run].connected == 1
    pauses = [pause(logs[run]) for run in CONTINUING]
    print(f"handed over within {max(pauses):.2f} s")
    assert max(pauses) < AT_ONCE
    leaving_said = (tmp_path / "leaving.log").read_text()
    assert f"{len(OTHERS)} finished ({', '.join(OTHERS)}), {len(CONTINUING)} handed over" in leaving_said


async def all_speak(follower: Follower) -> None:
    await saw(follower, lambda: all(len(seen) >= 3 for seen in follower.seen.values()))


async def all_begin_again(follower: Follower) -> None:
    await saw(follower, lambda: all(attempts(follower.seen[run]) == [1, 2] for run in CONTINUING))


async def saw(follower: Follower, enough: Callable[[], bool]) -> None:
    while not enough():
        follower.news.clear()
        await follower.news.wait()


def pause(log: Log) -> float:
    """Between the last chunk of the first worker and the first of the second."""
    second = max(place for place, (_, type, _) in enumerate(log.seen) if type == "start")
    return log.times[second] - log.times[second - 1]

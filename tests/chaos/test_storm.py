"""Process chaos: whatever is killed, stopped or cut, every viewer has every run's log, and every run ends.

A few seconds each by default; `LOOM_CHAOS_SECONDS=60` for the long form, `LOOM_CHAOS_SEED` repeats a storm's decisions,
`LOOM_CHAOS_FOLDER` is where histories and logs are kept.
"""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest

from tests.servers.servers import Servers

from .places import Place, RedisPlace, SqlitePlace
from .storm import Counts, Storm

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(600)]

SECONDS = float(os.environ.get("LOOM_CHAOS_SECONDS", "5"))
ZOMBIE_SECONDS = max(SECONDS, 8.0)
"""Some workers have to be stopped in the midst of a run, and to wake up."""
PLACES = ["sqlite", "valkey", "redis7"]
JUMPING = ["sqlite", "valkey"]


@pytest.fixture
def folder(tmp_path: Path, request: pytest.FixtureRequest, seed: int) -> Path:
    kept = os.environ.get("LOOM_CHAOS_FOLDER")
    folder = Path(kept).absolute() / f"{request.node.name}-{seed}" if kept else tmp_path
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def place(request: pytest.FixtureRequest, folder: Path, servers: Servers) -> Place:
    if request.param == "sqlite":
        return SqlitePlace(folder / "runs.db")
    return RedisPlace(servers.durable(request.param).start())


@pytest.fixture
def jumping(request: pytest.FixtureRequest, folder: Path, servers: Servers) -> Place:
    """A place whose own clock jumps, where it has one."""
    if request.param == "sqlite":
        return SqlitePlace(folder / "runs.db")
    clock = servers.clock()
    return RedisPlace(servers.durable(request.param, clock=clock).start(), clock)


@pytest.fixture
def seed() -> int:
    seed = int(os.environ.get("LOOM_CHAOS_SEED", random.randrange(10**6)))
    print(f"seed {seed} (LOOM_CHAOS_SEED repeats its decisions)")
    return seed


@pytest.mark.parametrize("place", PLACES, indirect=True)
async def test_nothing_is_lost_repeated_or_reordered(place: Place, folder: Path, seed: int) -> None:
    proven(await Storm(place, folder, seed=seed, seconds=SECONDS).rage())


@pytest.mark.parametrize("place", PLACES, indirect=True)
async def test_without_a_check_of_their_leases_writers_are_refused_by_the_store(
    place: Place, folder: Path, seed: int
) -> None:
    counts = await Storm(place, folder, seed=seed, seconds=ZOMBIE_SECONDS, zombies=True).rage()
    proven(counts)
    assert counts.refused > 0, "no zombie was refused: this proved nothing"


@pytest.mark.parametrize("jumping", JUMPING, indirect=True)
async def test_clocks_that_jump_an_hour_either_way(jumping: Place, folder: Path, seed: int, servers: Servers) -> None:
    counts = await Storm(jumping, folder, seed=seed, seconds=SECONDS, clock=servers.clock()).rage()
    proven(counts)
    assert counts.span > 3000, "no chunk was said at a wrong hour: this proved nothing"


def proven(counts: Counts) -> None:
    tell(counts)
    assert not counts.wrong
    assert all(counts.hits.values()), "a kind of fault hit nobody: this proved nothing"
    assert counts.attempts > counts.runs, "no fault hit a running run: this proved nothing"


def tell(counts: Counts) -> None:
    faults = ", ".join(f"{name}: {times}" for name, times in sorted(counts.hits.items()))
    print(f"{counts.hits.total()} faults ({faults})")
    print(f"{counts.runs} runs, {counts.chunks} chunks, {counts.viewers} viewers, {counts.attempts} attempts,")
    print(f"{counts.refused} writers refused by the store; wrong: {dict(counts.wrong) or 'nothing'}")

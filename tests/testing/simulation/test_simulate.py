"""The simulation: the engine passes it, what is broken does not, and a seed is a history."""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

import loom
from loom.stores.memory import MemoryStore
from loom.testing.simulation import Faults, Report, simulate
from loom.testing.simulation.__main__ import WEATHERS
from loom.testing.simulation.sample import RUNS, sample

from .mutants import ENGINES, STORES, NoTailCheck

SEEDS = 200
APP = sample()

ENOUGH = 80
"""Seeds among which a mutant must be found, in all weathers by turns; most are at the first."""


def first_failure(store: type[MemoryStore] | None = None) -> Report | None:
    make = None if store is None else lambda clock: store(retention=None, clock=clock)
    for seed, faults in zip(range(ENOUGH), itertools.cycle(WEATHERS.values()), strict=False):
        report = simulate(APP, RUNS, seed=seed, faults=faults, cancels=0.5, store=make, thin=False)
        if not report.ok:
            return report
    return None


def told_of(seed: int) -> str | None:
    """What is wrong with this seed."""
    report = simulate(APP, RUNS, seed=seed)
    return str(report) if not report.ok else None if report.faults else f"seed {seed}: nothing went wrong"


@pytest.mark.timeout(600)
def test_the_engine_keeps_every_guarantee() -> None:
    """A seed is the same in every process: as many of them as there are cores take part."""
    cores = min(len(os.sched_getaffinity(0)), 4)
    with ProcessPoolExecutor(cores, mp_context=get_context("spawn")) as pool:
        wrong = [told for told in pool.map(told_of, range(SEEDS), chunksize=10) if told is not None]
    assert not wrong, wrong[0]


@pytest.mark.parametrize("weather", WEATHERS)
def test_the_engine_keeps_them_in_every_weather(weather: str) -> None:
    for seed in range(8):
        report = simulate(APP, RUNS, seed=seed, faults=WEATHERS[weather])
        assert report.ok, report
        assert bool(report.faults) is (weather != "fair")


@pytest.mark.parametrize("store", STORES, ids=lambda store: store.__name__)
def test_a_broken_store_is_found(store: type[MemoryStore]) -> None:
    assert first_failure(store) is not None


@pytest.mark.parametrize("break_it", ENGINES, ids=lambda break_it: break_it.__name__)
def test_a_broken_engine_is_found(
    monkeypatch: pytest.MonkeyPatch, break_it: Callable[[pytest.MonkeyPatch], None]
) -> None:
    break_it(monkeypatch)
    assert first_failure() is not None


DIGESTS = """
from loom.testing.simulation import simulate
from loom.testing.simulation.sample import RUNS, sample
print([simulate(sample(), RUNS, seed=seed).digest for seed in range(3)])
"""


def test_a_seed_is_a_history_in_every_process() -> None:
    told = [
        subprocess.run(
            [sys.executable, "-c", DIGESTS],
            env={**os.environ, "PYTHONHASHSEED": hashes},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hashes in ("1", "4711")
    ]
    assert told[0] == told[1] == f"{[simulate(APP, RUNS, seed=seed).digest for seed in range(3)]}\n"
    assert len(set(told[0].strip("[]\n").split(", "))) == 3


def test_the_faults_that_a_failure_needs_are_named() -> None:
    """A batch that is sent again is stored twice there, and it is only sent again when its reply was lost."""
    report = simulate(APP, RUNS, seed=1, store=lambda clock: NoTailCheck(clock=clock))
    assert not report.ok
    assert 0 < len(report.needed) < report.faults.total() / 4
    assert any(" append#" in fault.step for fault in report.needed)
    assert f"these {len(report.needed)} of {report.faults.total()} faults are enough" in str(report)


def test_one_in_which_nothing_went_wrong_says_so() -> None:
    report = simulate(APP, RUNS[:1], faults=Faults.none(), cancels=0)
    assert report.ok
    assert not report.faults
    assert "NONE" in str(report)
    assert (report.attempts, report.takeovers, report.chunks) == (1, 0, 42)


def test_what_a_user_brings_is_simulated() -> None:
    app = loom.App()
    told: list[int] = []

    @app.actor(retry=loom.Retry(mode="continue"))
    async def count(n: int, ctx: loom.Context) -> AsyncIterator[int]:
        told.append(ctx.attempt)
        for number in range(len([chunk for chunk in ctx.previous if chunk.type == "data"]), n):
            yield number
            await asyncio.sleep(1)

    report = simulate(app, [("count", {"n": 60}, {"key": "k"})] * 3, workers=2, viewers=1, seed=3, cancels=0)
    assert report.ok, report
    assert report.attempts >= 3
    assert max(told) > 1, "no attempt was lost"


def test_a_declared_queue_is_served() -> None:
    app = loom.App()

    @app.actor(queue="jobs")
    async def report(rows: int) -> int:
        return rows

    report_of = simulate(app, [("report", {"rows": 3})], faults=Faults.none(), seconds=1, cancels=0)
    assert report_of.ok, report_of


def test_what_cannot_be_simulated_is_refused() -> None:
    app = loom.App()

    @app.actor
    def threaded() -> Iterator[int]:
        yield 1

    for runs in ([], [("threaded", None)], [("nobody", None)]):
        with pytest.raises(loom.UsageError):
            simulate(app, runs)
    with pytest.raises(loom.UsageError, match="no worker serves queue 'other'"):
        simulate(APP, [("tokens", {"n": 1}, {"queue": "other"})])
    with pytest.raises(loom.UsageError, match="lost_reply"):
        simulate(APP, RUNS, faults=Faults(lost_reply=1.5))


def test_a_producer_that_never_ends_is_told() -> None:
    app = loom.App()

    @app.actor
    async def hangs() -> None:
        await asyncio.Event().wait()

    report = simulate(app, [("hangs", None)], cancels=0, seconds=10, settle=60)
    assert "G10" in {violation.guarantee for violation in report.violations}


def test_the_docs_example() -> None:
    page = (Path(__file__).parents[3] / "docs" / "testing.md").read_text()
    example = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)[0]
    names: dict[str, Any] = {"__name__": "docs"}
    exec(compile(example, "docs/testing.md", "exec"), names)
    names["test_count_survives"]()

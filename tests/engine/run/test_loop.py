"""What Loom's own processes run on."""

from __future__ import annotations

import asyncio
import gc

import pytest

from loom.engine.run.loop import COLLECT_AFTER, loop_runner


def test_it_runs_on_uvloop_where_there_is_one() -> None:
    uvloop = pytest.importorskip("uvloop")

    async def main() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    with loop_runner() as runner:
        assert isinstance(runner.run(main()), uvloop.Loop)


def test_the_collector_waits_inside_and_is_as_it_was_behind() -> None:
    before = gc.get_threshold()
    with loop_runner():
        assert gc.get_threshold() == (COLLECT_AFTER, *before[1:])
    assert gc.get_threshold() == before

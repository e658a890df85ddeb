"""A process ends after its drain, whatever hangs in it."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import loom

from .kit import APPS, PATIENCE, Loom, environment

OURS = ("thread", "coroutine", "generator", "cleaning")
"""Of `apps.hanging`, what Loom abandons. The others hang in what belongs to the process: only Loom's own commands leave
that behind."""

ALL = (*OURS, "child", "executor", "thread_of_its_own")


async def _start_all(store: str) -> None:
    async with loom.connect(store) as client:
        for actor in ALL:
            await client.start(actor)


async def _states(store: str) -> dict[str, str]:
    """By actor, the states of their runs."""
    async with loom.connect(store) as client:
        return {head.meta.actor: head.state for head in await client.runs()}


@pytest.mark.parametrize("command", [("worker",), ("serve", "--port", "0")])
def test_a_command_leaves_behind_what_hangs(loom_command: Loom, command: tuple[str, ...]) -> None:
    name, *more = command
    with loom_command.running(name, "hanging:app", *more, "--drain", "100ms") as running:
        running.until("hanging:app")
        asyncio.run(_start_all(loom_command.store))
        for actor in ALL:
            running.until(f"begun {actor}\n")
        running.signal(signal.SIGTERM)
        assert running.wait() == 0
        assert "Stopped: " in running.out.decode()
        assert running.err.decode().count("did not stop within 0.3 s") == len(OURS)
    # What has said nothing is left for another worker; the others were done.
    assert asyncio.run(_states(loom_command.store)) == {
        **dict.fromkeys(ALL, "running"),
        "thread_of_its_own": "completed",
    }


@pytest.mark.parametrize("way", ["asyncio", "portal"])
def test_a_program_leaves_behind_what_hangs(tmp_path: Path, way: str) -> None:
    store = f"sqlite:///{tmp_path}/runs.db"
    with subprocess.Popen(
        [sys.executable, "hanging.py", way, store],
        cwd=APPS,
        env=environment(tmp_path),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            begun = {process.stdout.readline() for _ in OURS}
            assert begun == {f"begun {name}\n" for name in OURS}
            out, err = process.communicate("\n", timeout=PATIENCE)
        finally:
            process.kill()
    assert (out, process.returncode) == ("left\n", 0)
    assert err.count("did not stop within 0.3 s") == len(OURS)


def test_what_is_registered_for_the_exit_is_called_past_an_idle_pool(loom_command: Loom) -> None:
    done = loom_command("actor", "run", "pooled", "--app", "pooled:app", "--store", "memory://")
    assert done.returncode == 0
    assert done.stdout.split() == ["7", "flushed"]

"""Commands that live keep their queues; what dead ones left open is ended, and their claims are settled."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from loom.cli.session import end_orphans, session
from loom.model import limits
from loom.model.run import Meta
from loom.stores.memory import MemoryStore

pytestmark = pytest.mark.anyio

PROGRAM = """
import os, pathlib, sys
from loom.cli.session import session
with session(pathlib.Path(sys.argv[1])) as own:
    print(own.queue, flush=True)
    sys.stdin.read()
    os._exit(9)
"""


@pytest.fixture
async def store() -> AsyncIterator[MemoryStore]:
    async with MemoryStore() as store:
        yield store


class Other:
    """Another process that has a session."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, "-c", PROGRAM, str(folder)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.queue = self._process.stdout.readline().strip()

    def die(self) -> None:
        self._process.communicate()
        assert self._process.returncode == 9


async def put(store: MemoryStore, run: str, queue: str, *, started: bool) -> None:
    meta = Meta(run=run, actor="a", queue=queue)
    await store.queue.put(meta)
    await store.runs.create(meta)
    if started:
        await store.logs.fence(run, "token")


async def states(store: MemoryStore, *runs: str) -> list[str]:
    return [(await store.runs.get(run)).state for run in runs]


async def test_what_dead_commands_left_is_ended_and_what_lives_is_not(store: MemoryStore, tmp_path: Path) -> None:
    dead, living = Other(tmp_path), Other(tmp_path)
    for run, queue, started in [
        ("begun", dead.queue, True),
        ("queued", dead.queue, False),
        ("living", living.queue, True),
        ("other", "default", True),
        ("foreign", "cli.ffffffff.123456", True),
    ]:
        await put(store, run, queue, started=started)
    assert await end_orphans(store, tmp_path) == []
    dead.die()
    assert sorted(await end_orphans(store, tmp_path)) == ["begun", "queued"]
    assert await states(store, "begun", "queued") == ["lost", "lost"]
    assert await states(store, "living", "other", "foreign") == ["running"] * 3
    assert (await store.runs.get("begun")).error is not None
    assert await end_orphans(store, tmp_path) == []
    living.die()


async def test_no_orphan_is_too_old_to_be_found(
    store: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LIST_LIMIT", 2)
    dead = Other(tmp_path)
    for place in range(3):
        await put(store, f"begun-{place}", dead.queue, started=True)
        await put(store, f"queued-{place}", dead.queue, started=False)
    for place in range(5):
        await put(store, f"other-{place}", "default", started=place % 2 == 0)
    dead.die()
    orphans = [f"{state}-{place}" for state in ("begun", "queued") for place in range(3)]
    assert sorted(await end_orphans(store, tmp_path)) == orphans
    assert await states(store, *orphans) == ["lost"] * 6


async def test_the_queues_of_dead_commands_are_served_until_their_claims_cannot_matter(tmp_path: Path) -> None:
    dead, living = Other(tmp_path), Other(tmp_path)
    dead.die()
    with session(tmp_path) as own:
        assert own.served == (own.queue, dead.queue)
    assert not (tmp_path / own.queue).exists()
    os.utime(tmp_path / dead.queue, (0, 0))
    with session(tmp_path) as later:
        assert later.served == (later.queue,)
        assert not (tmp_path / dead.queue).exists()
    living.die()


async def test_queues_are_never_the_same(tmp_path: Path) -> None:
    with session(tmp_path) as one, session(tmp_path) as other:
        assert one.queue != other.queue
        assert other.served == (other.queue,)


async def test_a_folder_that_cannot_be_written_is_done_without(store: MemoryStore, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with session(tmp_path / "file" / "folder") as own:
        assert own.served == (own.queue,)
        await put(store, "r", own.queue, started=True)
        assert await end_orphans(store, tmp_path / "file" / "folder") == []

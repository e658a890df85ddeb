"""What a power cut and a full disk leave of an SQLite store.

At `disk` durability nothing that was acknowledged is lost. At `process` a power cut takes back the newest commits, as
many as the system had not written by itself; what is left is sound, and whole up to some moment.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from loom.model.chunk import Batch, Chunk
from loom.model.errors import LogNotFound, StoreFull
from loom.model.ports import Durability
from loom.stores.sqlite import SqliteStore
from loom.testing.author import Author, read_all

from .sqlite.mounts import Disk, loop_disk, tmpfs
from .sqlite.processes import Appender, check_log, running

pytestmark = [pytest.mark.anyio, pytest.mark.root]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with loop_disk(tmp_path) as disk:
        yield disk


def stop(appender: Appender) -> None:
    """Halt it where it is, and read what it has said until then."""
    os.kill(appender.process.pid, signal.SIGSTOP)
    os.waitpid(appender.process.pid, os.WUNTRACED)
    assert appender.process.stdout is not None
    os.set_blocking(appender.process.stdout.fileno(), False)
    appender.read()
    os.set_blocking(appender.process.stdout.fileno(), True)


async def cut(disk: Disk, durability: Durability, seed: int) -> list[tuple[int, int]]:
    """Cut the power at some random moments of a process that writes eight runs. Each time, for each run: the last
    acknowledged seq, and the last one that is there."""
    moments = random.Random(seed)
    found = []
    with running(Appender, disk.folder / "runs.db", durability, "8") as appender:
        for number in range(4):
            await asyncio.to_thread(appender.read, moments.randrange(10, 400))
            stop(appender)
            acked = dict(appender.acked)
            with disk.after_a_power_cut(f"cut-{number}") as folder:
                async with SqliteStore(folder / "runs.db") as store:
                    found += [(seq, await tail_of(store, run)) for run, seq in acked.items()]
                assert integrity(folder / "runs.db") == "ok"
            os.kill(appender.process.pid, signal.SIGCONT)
        assert appender.process.poll() is None, "it ended before the power was cut: this proved nothing"
    return found


async def tail_of(store: SqliteStore, run: str) -> int:
    try:
        return await check_log(store, run, 0)
    except LogNotFound:
        return 0


def integrity(path: Path) -> str:
    db = apsw.Connection(str(path))
    ((answer,),) = db.execute("PRAGMA integrity_check").fetchall()
    db.close()
    return str(answer)


@pytest.mark.parametrize("seed", range(3))
async def test_at_disk_durability_a_power_cut_loses_nothing_acknowledged(disk: Disk, seed: int) -> None:
    found = await cut(disk, "disk", seed)
    assert len(found) >= 8
    assert all(there >= acked > 0 for acked, there in found), found


async def test_at_process_durability_a_power_cut_leaves_what_is_whole(disk: Disk) -> None:
    """Every log dense, up to some moment before; that something is lost shows that the power really was cut."""
    found = await cut(disk, "process", 0)
    assert any(there < acked for acked, there in found), found


@pytest.mark.parametrize("seed", range(3))
async def test_a_full_disk_is_told_and_passes(tmp_path: Path, seed: int) -> None:
    """Filled by somebody else up to a random rest, again and again: `StoreFull`, nothing changed, and on it goes.

    The rest decides whether the log of writes, or the file itself when the log is folded in, finds no room.
    """
    rests = random.Random(seed)
    with tmpfs(tmp_path / "small", "24m") as folder:
        path, filler = folder / "runs.db", folder / "filler"
        async with SqliteStore(path) as store:
            authors = [await Author.start(store, f"run-{number}") for number in range(4)]
            for _ in range(12):
                fill(folder, filler, rest=rests.randrange(4096, 600_000))
                frozen = [await fill_up(author) for author in authors]
                for author in authors:
                    assert (await store.runs.get(author.log)).tail == author.tail
                    await check_lines(store, author)
                filler.unlink()
                for author, batch in zip(authors, frozen, strict=True):
                    assert await author.send(batch) == batch.cursor
                    await store.logs.trim(author.log, author.tail)
                await store.sweep()
        assert integrity(path) == "ok"
        fill(folder, filler, rest=0)
        with pytest.raises(StoreFull):
            await SqliteStore(path).__aenter__()
        filler.unlink()
        async with SqliteStore(path) as store:
            for author in authors:
                await check_lines(store, author)


def fill(folder: Path, filler: Path, rest: int) -> None:
    """Leave about `rest` bytes of room."""
    free = os.statvfs(folder)
    with filler.open("wb") as file:
        file.write(bytes(max(free.f_bavail * free.f_bsize - rest, 0)))


async def fill_up(author: Author) -> Batch:
    """Append until there is no room; the batch that was refused."""
    for _ in range(100_000):
        batch = author.batch(*[Chunk("data", "x" * 900)] * (1 + author.tail % 9))
        try:
            await author.send(batch)
        except StoreFull:
            return batch
    raise AssertionError("the disk never was full: this proved nothing")


async def check_lines(store: SqliteStore, author: Author) -> None:
    """The log is dense, from where it was trimmed to what was acknowledged."""
    head = await store.runs.get(author.log)
    lines = await read_all(store.logs, author.log, head.earliest)
    assert len(lines) == author.tail - head.first + 1

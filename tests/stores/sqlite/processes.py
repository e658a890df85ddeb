"""Other processes on the same file, started as ``python -m tests.stores.sqlite.processes MODE PATH …``.

What they have done they say on standard output, a line each.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import apsw

from loom.model.chunk import Chunk
from loom.model.ports import Durability
from loom.model.run import Meta
from loom.stores.sqlite import SqliteStore
from loom.wire.json import make_batch

__all__ = ["Appender", "Locker", "Pacer", "check_log", "running"]

ROOT = Path(__file__).parents[3]


def chunk(run: str, seq: int) -> Chunk[str]:
    """What an appending process says at `seq` of `run`; long enough to fill pages soon."""
    return Chunk("data", f"{run}/{seq}/" + "x" * (seq * 7 % 900))


async def _append(path: str, durability: Durability, runs: int) -> None:
    async with SqliteStore(path, durability=durability) as store:
        await asyncio.gather(*(_write(store, f"run-{number}") for number in range(runs)))


async def _write(store: SqliteStore, run: str) -> None:
    """Append for ever, in batches of one to seven; say each acknowledgement as a line ``run seq``."""
    await store.runs.create(Meta(run=run, actor="actor"))
    fence = await store.logs.fence(run, f"token-{os.getpid()}")
    tail = fence.tail
    while True:
        size = 1 + tail % 7
        batch = make_batch(fence.epoch, tail + 1, [chunk(run, seq) for seq in range(tail + 1, tail + size + 1)])
        tail = (await store.logs.append(run, batch)).seq
        os.write(1, b"%b %d\n" % (run.encode(), tail))


async def _pace(path: str) -> None:
    """Append one chunk for each line of standard input, with its time; end with the input."""
    async with SqliteStore(path) as store:
        await store.runs.create(Meta(run="run", actor="actor"))
        epoch = (await store.logs.fence("run", "token")).epoch
        os.write(1, b"ready\n")
        for seq, _ in enumerate(iter(sys.stdin.readline, ""), 1):
            await store.logs.append("run", make_batch(epoch, seq, [Chunk("data", time=time.time())]))


def _lock(path: str) -> None:
    """Hold the write lock until standard input ends."""
    db = apsw.Connection(path)
    db.execute("BEGIN IMMEDIATE")
    os.write(1, b"locked\n")
    sys.stdin.read()
    db.execute("COMMIT")
    db.close()


class Running:
    """Such a process, seen from the test."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process

    def lines(self) -> Iterator[str]:
        """What it says, until it ends."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            yield line.decode().rstrip()


class Appender(Running):
    """Appends. `acked` is the last acknowledged seq of each run, as far as it was read."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        super().__init__(process)
        self.acked: dict[str, int] = {}
        self.count = 0

    def read(self, most: int | None = None) -> None:
        """Read acknowledgements: `most` more, or (after a kill) all there are."""
        for line in self.lines():
            run, seq = line.split()
            self.acked[run] = int(seq)
            self.count += 1
            if most is not None and (most := most - 1) <= 0:
                return


class Pacer(Running):
    """Appends one chunk when told."""

    def append(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()


class Locker(Running):
    """Holds the write lock."""

    def unlock(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait(10) == 0


_MODES: dict[type[Running], str] = {Appender: "append", Pacer: "pace", Locker: "lock"}


R = TypeVar("R", bound=Running)


@contextmanager
def running(kind: type[R], *arguments: str | os.PathLike[str]) -> Iterator[R]:
    """Start a process; it is dead afterwards."""
    command = [sys.executable, "-m", "tests.stores.sqlite.processes", _MODES[kind], *map(str, arguments)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield kind(process)
        finally:
            process.kill()


async def check_log(store: SqliteStore, run: str, least: int) -> int:
    """That a log holds what the appending process says, densely, to `least` at least. Returns its tail."""
    seq, after = 0, None
    while True:
        page = await store.logs.read(run, after)
        for cursor, line in page.lines():
            seq += 1
            assert cursor.seq == seq
            assert f'"{run}/{seq}/'.encode() in line
        if page.caught_up:
            assert seq >= least, f"{run}: {least} were acknowledged, {seq} are there"
            return seq
        after = page.cursor


def main() -> None:
    mode, path, *rest = sys.argv[1:]
    if mode == "lock":
        _lock(path)
    elif mode == "pace":
        asyncio.run(_pace(path))
    else:
        durability: Durability = "disk" if rest[0] == "disk" else "process"
        asyncio.run(_append(path, durability, int(rest[1])))


if __name__ == "__main__":
    main()

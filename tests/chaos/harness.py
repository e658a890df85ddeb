"""Processes to kill and viewers that watch: what the chaos tests are made of. The checker knows nothing of them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

import loom
from loom.connect import open_store
from loom.model.cursor import Cursor
from loom.model.ports import Store
from loom.tasks import TaskSet
from loom.wire.json import decode_chunk
from tests.mortal import mortal
from tests.servers.clock import Clock

HERE = Path(__file__).parent
Seen = list[tuple[str, str, Any]]
"""(cursor, type, data) of each chunk, in the order it was seen."""


class Log(NamedTuple):
    seen: Seen
    times: list[float]
    """When each chunk was said, in Unix seconds."""


class Process:
    """One `loom` command, or a script beside this file, that is started again each time it was killed. A command can
    have a wall clock of its own."""

    def __init__(self, *args: str, log: Path, clock: Clock | None = None) -> None:
        loom = ("-m", "loom") if clock is None else ("jumpy.py", str(clock.file))
        self._args = args if args[0].endswith(".py") else (*loom, *args)
        self._log = log
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *mortal([sys.executable, *self._args]), cwd=HERE, stdout=log, stderr=log
            )

    async def revive(self) -> bool:
        """Start it again if it has ended by itself, as a supervisor would; whether it had."""
        if self._process is None or self._process.returncode is None:
            return False
        await self.start()
        return True

    async def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        await self._process.wait()

    async def wait(self) -> int:
        """Until it has ended; its exit code."""
        assert self._process is not None
        return await self._process.wait()

    @property
    def ended(self) -> int | None:
        """How it ended, if it did."""
        return None if self._process is None else self._process.returncode

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    async def stop(self) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()  # also one that is stopped
            await self._process.wait()

    def times_said(self, words: str) -> int:
        """How often its output has these words by now."""
        return self._log.read_text().count(words)

    async def said(self, words: str, timeout: float = 30) -> None:
        """Wait until its output has these words."""
        async with asyncio.timeout(timeout):
            while words not in self._log.read_text():  # noqa: ASYNC110 - a file of another process
                await asyncio.sleep(0.02)


class RawViewer:
    """Reads a run's events from a bare socket, resuming with Last-Event-ID, as a browser would."""

    def __init__(self, port: int, run: str) -> None:
        self._port = port
        self._run = run
        self._last: str | None = None
        self.seen: Seen = []
        self.connected = 0
        """How often it has connected."""

    async def follow(self) -> None:
        """Until the run has ended."""
        pause = random.Random(self._run)
        while not self._ended():
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, EOFError):
                await self._once()
            await asyncio.sleep(pause.uniform(0.02, 0.1))  # a browser's `retry`, not a wait for anything

    def _ended(self) -> bool:
        return bool(self.seen) and self.seen[-1][1] in ("complete", "error")

    async def _once(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        self.connected += 1
        try:
            resume = f"Last-Event-ID: {self._last}\r\n" if self._last else ""
            writer.write(
                f"GET /runs/{self._run}/events HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\n{resume}\r\n".encode()
            )
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            if " 200 " not in head.split("\r\n")[0]:
                return
            assert "content-type: text/event-stream\r\n" in head
            async for event in _events(reader):
                self._take(event)
        finally:
            writer.close()

    def _take(self, event: bytes) -> None:
        fields = dict(line.split(b": ", 1) for line in event.split(b"\n") if line and not line.startswith(b":"))
        if b"data" not in fields:
            return
        chunk = decode_chunk(fields[b"data"])
        self._last = fields[b"id"].decode()
        assert chunk.type == fields[b"event"].decode()
        self.seen.append((self._last, chunk.type, chunk.data))


async def _events(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """Whole events out of HTTP/1.1 chunked framing; what a cut leaves of an event is dropped, as WHATWG says."""
    buffer = b""
    while True:
        size = int(await reader.readuntil(b"\r\n"), 16)
        buffer += await reader.readexactly(size)
        await reader.readexactly(2)
        *events, buffer = buffer.split(b"\n\n")
        for event in events:
            yield event
        if size == 0:
            return


async def follow_http(url: str, run: str, seen: Seen) -> None:
    """The Python client over HTTP; it reconnects by itself."""
    async with loom.connect(url) as client:
        async for chunk in client.run(run).chunks(raise_errors=False):
            seen.append((str(chunk.cursor), chunk.type, chunk.data))


class Follower:
    """`follow.py` in a process that is never killed: a client on the store itself."""

    def __init__(self, url: str, runs: Iterable[str] = ()) -> None:
        self._url = url
        self._fed: asyncio.Queue[str | None] = asyncio.Queue()
        self.seen: dict[str, Seen] = {}
        self.news = asyncio.Event()
        self.ended = False
        for run in runs:
            self.add(run)

    def add(self, run: str) -> None:
        """Follow this run as well; `close` says that there will be no more."""
        self.seen[run] = []
        self._fed.put_nowait(run)

    def close(self) -> None:
        self._fed.put_nowait(None)

    async def follow(self) -> None:
        """Until `close`, and all its runs have ended."""
        process = await asyncio.create_subprocess_exec(
            *mortal([sys.executable, str(HERE / "follow.py"), self._url]),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=2**20,
        )
        assert process.stdout is not None
        try:
            async with TaskSet() as tasks:
                tasks.spawn(self._feed(process), "feed")
                async for line in process.stdout:
                    run, cursor, type, data = msgspec.json.decode(line)
                    self.seen[run].append((cursor, type, data))
                    self.news.set()
            assert await process.wait() == 0
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            self.ended = True
            self.news.set()

    async def _feed(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        while (run := await self._fed.get()) is not None:
            process.stdin.write(f"{run}\n".encode())
        process.stdin.close()


async def read_log(url: str, run: str) -> Seen:
    """The log itself, straight from the store."""
    return (await read_logs(url, [run]))[run].seen


async def read_logs(url: str, runs: Iterable[str]) -> dict[str, Log]:
    """Logs that have ended, straight from the store."""
    async with open_store(url) as store:
        return {run: await _read(store, run) for run in runs}


async def _read(store: Store, run: str) -> Log:
    log = Log([], [])
    after: Cursor | None = None
    while True:
        page = await store.logs.read(run, after)
        for cursor, line in page.lines():
            chunk = decode_chunk(line)
            log.seen.append((str(cursor), chunk.type, chunk.data))
            log.times.append(chunk.time)
        after = page.cursor
        if page.caught_up:
            assert page.ended
            return log

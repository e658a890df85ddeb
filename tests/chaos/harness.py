"""Processes to kill and viewers that watch: what the chaos tests are made of. The checker knows nothing of them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec

import loom
from loom.model.cursor import Cursor
from loom.stores.sqlite import SqliteStore
from loom.wire.json import decode_chunk

HERE = Path(__file__).parent
Seen = list[tuple[str, str, Any]]
"""(cursor, type, data) of each chunk, in the order it was seen."""


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Process:
    """One `loom` command, or a script beside this file, that is started again each time it was killed."""

    def __init__(self, *args: str, log: Path) -> None:
        self._args = args if args[0].endswith(".py") else ("-m", "loom", *args)
        self._log = log
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, *self._args, cwd=HERE, stdout=log, stderr=log
            )

    async def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        await self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    async def stop(self) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGCONT)
                self._process.kill()
            await self._process.wait()

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
    """`follow.py` in a process that is never killed."""

    def __init__(self, url: str, runs: list[str]) -> None:
        self._url = url
        self._runs = runs
        self.seen: dict[str, Seen] = {run: [] for run in runs}
        self.news = asyncio.Event()
        self.ended = False

    async def follow(self) -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(HERE / "follow.py"), self._url, *self._runs, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        try:
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


async def read_log(path: Path, run: str) -> Seen:
    """The log itself, straight from the store."""
    seen: Seen = []
    async with SqliteStore(path) as store:
        after: Cursor | None = None
        while True:
            page = await store.read(run, after)
            for cursor, line in page.lines():
                chunk = decode_chunk(line)
                seen.append((str(cursor), chunk.type, chunk.data))
            after = page.cursor
            if page.caught_up:
                assert page.ended
                return seen


def check_log(log: Seen, n: int) -> int:
    """The log is what it must be: dense, every value once, ended once. Returns the number of attempts."""
    assert [int(cursor.split("-")[1]) for cursor, _, _ in log] == list(range(1, len(log) + 1))
    assert [data["i"] for _, type, data in log if type == "data"] == list(range(n))
    assert [type for _, type, _ in log if type in ("complete", "error")] == ["complete"]
    attempts = [data["attempt"] for _, type, data in log if type == "start"]
    assert attempts == sorted(set(attempts))
    return len(attempts)

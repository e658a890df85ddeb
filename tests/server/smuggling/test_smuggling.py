"""No part of a body is ever taken for a request, whatever is done to the framing; and every connection ends.

`LOOM_FUZZ_REQUESTS=200000` for the long form; `LOOM_FUZZ_SEED` repeats the requests of a run, which prints its seed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import sys
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import pytest

from tests.mortal import free_port, mortal
from tests.waits import later

from .grammar import make_plan
from .judge import find_fault, read_answers, runs_asked_for
from .proxy import RecordingProxy, recording
from .reader import End, read_requests

pytestmark = pytest.mark.anyio

REQUESTS = int(os.environ.get("LOOM_FUZZ_REQUESTS", "10000"))
AT_ONCE = 32
PATIENCE = 60.0


class Fuzz:
    """Sends plans, judges the answers, and counts."""

    def __init__(self, proxy: RecordingProxy, seed: str) -> None:
        self._proxy = proxy
        self._seed = seed
        self._names: Iterator[int] = iter(range(sys.maxsize))
        self.requests = self.connections = self.answers = self.sound = 0
        self.ends = dict.fromkeys(End, 0)
        self.allowed: set[str] = set()
        """Runs that a request, and not a body, asked for."""

    async def run(self, count: int) -> None:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(AT_ONCE):
                tasks.create_task(self._send_plans(count))

    async def _send_plans(self, count: int) -> None:
        while self.requests < count:
            name = f"s{self._seed}.{next(self._names)}"
            plan = make_plan(Random(name), name)
            self.requests += plan.requests
            try:
                async with asyncio.timeout(PATIENCE):
                    sent, data = await self._exchange(plan.pieces)
            except TimeoutError:
                raise AssertionError(f"{name}: neither answered nor closed: {plan.pieces}") from None
            self._judge(name, sent, data, sound=plan.sound)

    async def _exchange(self, pieces: list[bytes]) -> tuple[bytes, bytes]:
        """What reached the server, and what came back."""
        reading = read_requests(b"".join(pieces))
        reader, writer = await asyncio.open_connection("127.0.0.1", self._proxy.port)
        port = writer.get_extra_info("sockname")[1]
        data = b""
        try:
            for piece in pieces:
                writer.write(piece)
                await asyncio.sleep(0)
            methods = [request.method for request in reading.requests]
            with contextlib.suppress(ConnectionError):
                while more := await reader.read(65536):
                    data += more
                    if reading.end in (End.ALL, End.CUT) and len(read_answers(data, methods)) >= len(methods):
                        break  # the server waits for more
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
        return bytes(self._proxy.records.pop(port)), data

    def _judge(self, name: str, sent: bytes, data: bytes, *, sound: bool) -> None:
        reading = read_requests(sent)
        requests = [*reading.requests, *([reading.begun] if reading.begun else [])]
        answers = read_answers(data, [request.method for request in requests])
        fault = find_fault(reading, answers, sound=sound)
        assert fault is None, f"{name}: {fault}\nsent {sent!r}\nanswered {data!r}"
        self.connections += 1
        self.answers += len(answers)
        self.sound += sound
        self.ends[reading.end] += 1
        self.allowed |= runs_asked_for(reading)


@asynccontextmanager
async def loom_serve(folder: Path) -> AsyncIterator[int]:
    port = free_port()
    command = [sys.executable, "-m", "loom", "serve", "tests.server.smuggling.app:app", "--store", "memory://"]
    with (folder / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *mortal([*command, "--port", str(port)]), cwd=Path(__file__).parents[3], stdout=log, stderr=log
        )
    try:
        async with asyncio.timeout(PATIENCE):
            await later(lambda: process.returncode is not None or is_ready(port))
        assert process.returncode is None, (folder / "log").read_text()
        yield port
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


def is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=PATIENCE):
            return True
    except OSError:
        return False


def canaries(port: int) -> set[str]:
    found: set[str] = set()
    before = ""
    while True:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/runs?limit=1000{before}", timeout=PATIENCE) as reply:
            page = json.load(reply)
        found |= {run["id"] for run in page["runs"]}
        if "next" not in page:
            return found
        before = f"&before={page['next']}"


def connections_to(port: int) -> int:
    """Sockets of this machine's servers that are neither closed nor only remembered, by the kernel's own table."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[1].endswith(f":{port:04X}") and row[3] not in ("06", "0A") for row in rows)


async def test_no_body_is_taken_for_a_request(tmp_path: Path) -> None:
    seed = os.environ.get("LOOM_FUZZ_SEED", str(random.randrange(10**6)))
    async with loom_serve(tmp_path) as port:
        async with recording(port) as proxy:
            fuzz = Fuzz(proxy, seed)
            await fuzz.run(REQUESTS)
        started = await asyncio.to_thread(canaries, port)
        assert started <= fuzz.allowed, f"seed {seed}: started by a body: {sorted(started - fuzz.allowed)[:5]}"
        async with asyncio.timeout(PATIENCE):
            await later(lambda: connections_to(port) == 0)
        ends = ", ".join(f"{end.name.lower()} {count}" for end, count in fuzz.ends.items())
        print(
            f"\nseed {seed}: {fuzz.requests} requests on {fuzz.connections} connections ({fuzz.sound} sound; {ends}), "
            f"{fuzz.answers} answers, {len(started)} runs that requests asked for, none that a body did"
        )
        assert fuzz.sound > fuzz.connections / 5
        assert all(fuzz.ends[end] for end in (End.CLOSED, End.CUT, End.DOUBT)), "the tricks have lost their edge"

"""What the reader sees when things happen: one test for each row of that table in docs/concepts.md."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import apsw
import pytest

import loom
from loom.connect import open_store
from loom.engine.follow.client import Client
from loom.engine.follow.transport import StoreTransport
from loom.engine.run.worker import Worker
from loom.model.grammar import State
from loom.model.ports import Notice, Store
from loom.server.app import create_app
from loom.server.serve import serving
from loom.tasks import spawn
from tests.engine.kit import chunks_in, data_in, grammatical, types_in
from tests.faults.store import FaultStore
from tests.happenings import app
from tests.server.harness import ask

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parent.parent
LEASE = 0.5
PATIENCE = 30.0
"""Seconds after which something hangs."""

Chunk = loom.Chunk[Any]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, path: Path) -> AsyncIterator[Store]:
    """Every store, opened."""
    url = "memory://" if request.param == "memory" else url_of(path)
    async with open_store(url) as store:
        yield store


def url_of(path: Path) -> str:
    return f"sqlite:///{path}"


class Process:
    """A worker in a process of its own, to be killed or stopped."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def ended_its_run(self) -> None:
        """It is at rest: asked to stop, it has nothing to wait for."""
        self._process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE):
            await self._process.wait()

    async def kill(self) -> None:
        """kill -9, wherever it is."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()


@asynccontextmanager
async def worker_process(path: Path) -> AsyncIterator[Process]:
    arguments = ["worker", "tests.happenings:app", "--store", url_of(path), "--lease", f"{LEASE}s"]
    process = Process(
        await asyncio.create_subprocess_exec(
            sys.executable, "-m", "loom", *arguments, cwd=ROOT, stderr=asyncio.subprocess.DEVNULL
        )
    )
    try:
        yield process
    finally:
        await process.kill()


class Reader:
    """Reads a run as it goes, and keeps what it has seen."""

    def __init__(self, run: loom.Run[Any, Any]) -> None:
        self.run = run
        self.seen: list[Chunk] = []
        self._chunks = run.chunks(raise_errors=False)

    async def until(self, reached: Callable[[Chunk], object]) -> Chunk:
        """The next chunk for which that holds."""
        async with asyncio.timeout(PATIENCE):
            async for chunk in self._chunks:
                self.seen.append(chunk)
                if reached(chunk):
                    return chunk
        raise AssertionError(f"it ended: {self.story}")

    async def end(self) -> None:
        async with asyncio.timeout(PATIENCE):
            self.seen += [chunk async for chunk in self._chunks]
        assert grammatical(self.seen) is State.ENDED

    @property
    def story(self) -> list[Any]:
        """What was seen, in short."""
        return [_short(chunk) for chunk in self.seen]

    async def aclose(self) -> None:
        await self._chunks.aclose()


def _short(chunk: Chunk) -> Any:
    match chunk.type:
        case "start":
            return ("start", chunk.data["attempt"], chunk.data["kept_through"])
        case "error":
            assert chunk.error is not None
            return ("error", chunk.error.code)
        case "complete":
            return "complete"
        case _:
            return chunk.data


@asynccontextmanager
async def reading(client: Client, actor: str, input: Any = None) -> AsyncIterator[Reader]:
    async with aclosing(Reader(await client.start(actor, input))) as reader:
        yield reader


@asynccontextmanager
async def a_client(store: Store) -> AsyncIterator[Client]:
    async with Client(StoreTransport(store, app.registry)) as client:
        yield client


def a_worker(store: Store, **options: Any) -> Worker:
    return Worker(store, app.registry, lease=LEASE, drain=0.0, **options)


# --- rows ------------------------------------------------------------------------------------------------------------


class Network:
    """What lies between a reader and the gateway: it can be cut, and the gateway behind it moved."""

    def __init__(self) -> None:
        self.target = ("", 0)
        self.cuts = 0
        self._lines: set[asyncio.StreamWriter] = set()

    async def serve(self) -> asyncio.Server:
        return await asyncio.start_server(self._connected, "127.0.0.1", 0)

    def cut(self) -> None:
        """Every connection is gone, without a word."""
        for line in list(self._lines):
            self.cuts += 1
            line.transport.abort()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection(*self.target)
        except OSError:
            writer.transport.abort()
            return
        self._lines |= {writer, back}
        with contextlib.suppress(ConnectionError):
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass_on(reader, back))
                group.create_task(self._pass_on(there, writer))

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            return
        finally:
            writer.transport.abort()
            self._lines.discard(writer)


async def test_readers_network_drops_or_the_gateway_restarts(store: Store) -> None:
    """Nothing lost, nothing twice."""
    network = Network()
    async with await network.serve() as server, a_worker(store):
        host, port = server.sockets[0].getsockname()
        gateway = serving(create_app(StoreTransport(store, app.registry)), port=0)
        network.target = _where(await gateway.__aenter__())
        async with loom.connect(f"http://{host}:{port}") as client, reading(client, "count", 20) as reader:
            for number in range(20):
                await reader.run.send("go", id=f"go-{number}")
                await reader.until(lambda chunk, number=number: chunk.data == number)  # type: ignore[misc]
                if number % 10 == 3:
                    network.cut()
                elif number % 10 == 7:
                    await gateway.__aexit__(None, None, None)
                    gateway = serving(create_app(StoreTransport(store, app.registry)), port=0)
                    network.target = _where(await gateway.__aenter__())
            await reader.end()
            assert reader.seen == await chunks_in(store, reader.run.id)
            assert data_in(reader.seen) == list(range(20))
            assert network.cuts >= 2
        await gateway.__aexit__(None, None, None)


def _where(address: Any) -> tuple[str, int]:
    return address.host, address.port


async def test_worker_killed_before_output(path: Path) -> None:
    """A short pause, then `start {attempt: 2}`."""
    async with open_store(url_of(path)) as store, a_client(store) as client, reading(client, "silent") as reader:
        async with worker_process(path) as worker:
            await reader.until(lambda chunk: chunk.type == "start")
            await worker.kill()
        async with worker_process(path):
            await reader.until(lambda chunk: chunk.type == "start")
            await reader.run.send("go")
            await reader.end()
    assert reader.story == [("start", 1, 0), ("start", 2, 0), "complete"]
    assert reader.seen[-1].data == "attempt 2"


@pytest.mark.parametrize(
    ("actor", "then"),
    [
        ("speak", [("error", "run_lost")]),
        ("restart", [("start", 2, 0), "attempt 2", "attempt 2 goes on", "complete"]),
        ("continue", [("start", 2, 2), "attempt 2", "attempt 2 goes on", "complete"]),
    ],
)
async def test_worker_killed_after_output(path: Path, actor: str, then: list[Any]) -> None:
    """As the author chose: `error {run_lost}`, or `start {attempt: 2, kept_through: n}`."""
    async with open_store(url_of(path)) as store, a_client(store) as client, reading(client, actor) as reader:
        async with worker_process(path) as worker:
            await reader.until(lambda chunk: chunk.data == "attempt 1")
            await worker.kill()
        async with worker_process(path):
            if len(then) > 1:
                await reader.until(lambda chunk: chunk.data == "attempt 2")
                await reader.run.send("go")
            await reader.end()
    assert reader.story == [("start", 1, 0), "attempt 1", *then]


async def stop_without_lock(process: Process, path: Path) -> None:
    """SIGSTOP it at a moment when it does not hold the file's write lock."""
    while True:
        process.signal(signal.SIGSTOP)
        with contextlib.closing(apsw.Connection(str(path))) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE; ROLLBACK")
            except apsw.BusyError:
                process.signal(signal.SIGCONT)
            else:
                return


async def test_paused_worker_wakes_up_late(path: Path) -> None:
    """Nothing from it: fenced."""
    async with (
        open_store(url_of(path)) as store,
        a_client(store) as client,
        reading(client, "continue") as reader,
        worker_process(path) as paused,
    ):
        await reader.until(lambda chunk: chunk.data == "attempt 1")
        await stop_without_lock(paused, path)
        async with worker_process(path):
            await reader.until(lambda chunk: chunk.data == "attempt 2")
            await reader.run.send("go")
            paused.signal(signal.SIGCONT)
            await reader.end()
            await paused.ended_its_run()
    assert reader.story == [("start", 1, 0), "attempt 1", ("start", 2, 2), "attempt 2", "attempt 2 goes on", "complete"]


async def test_two_clients_repeat_one_post_with_one_idempotency_key(store: Store) -> None:
    """One run."""
    body = {"actor": "count", "input": {"n": 0}}
    transport = StoreTransport(store, app.registry)
    async with serving(create_app(transport), port=0) as address, a_worker(store):
        replies = await asyncio.gather(
            *(ask(address, "POST", "/runs", body, headers={"Idempotency-Key": "once"}) for _ in range(10))
        )
        assert {reply.status for reply in replies} == {201}
        (run,) = {reply.json["id"] for reply in replies}
        assert [head.meta.run for head in await store.runs.list_runs()] == [run]
        await loom.Run(transport, run).wait(PATIENCE)
        assert types_in(await chunks_in(store, run)) == ["start", "complete"]
        other = await ask(address, "POST", "/runs", {**body, "input": {"n": 1}}, headers={"Idempotency-Key": "once"})
        assert (other.status, other.error["code"]) == (409, "conflict")
    await transport.aclose()


async def acknowledges(store: FaultStore) -> None:
    """A worker on `store` finds what there is to be acknowledged, and does so."""
    acknowledging = store.hold("ack")
    async with a_worker(store), asyncio.timeout(PATIENCE):
        await acknowledging.arrived.wait()
        acknowledging.let_go()


async def test_crash_between_the_last_chunk_and_the_acknowledgement(store: Store) -> None:
    """Nothing: an ended log is acknowledged and dropped."""
    async with a_client(store) as client:
        run = await client.start("count", 0)
        crashing = FaultStore(store)
        acknowledging = crashing.hold("ack")
        async with a_worker(crashing):
            await acknowledging.arrived.wait()
            crashing.out = True
        before = await chunks_in(store, run.id)
        assert types_in(before) == ["start", "complete"]
        heir = FaultStore(store)
        await acknowledges(heir)
        assert heir.appended == []
        assert (await store.runs.get(run.id)).attempt == 1
        assert await chunks_in(store, run.id) == before


@pytest.mark.parametrize("how", ["trimmed", "dropped", "flushed"])
async def test_log_trimmed_below_the_cursor_or_dropped(store: Store, how: str) -> None:
    """`CursorExpired`, or `LogNotFound`: loud."""
    async with a_client(store) as client, a_worker(store):
        reader = Reader(await client.start("count", 5))
        said = []
        for number in range(5):  # one by one: what is said at once is one batch, which is trimmed as a whole
            await reader.run.send("go", id=f"{number}")
            said.append(await reader.until(lambda chunk, number=number: chunk.data == number))  # type: ignore[misc]
        cursor = said[1].cursor
        await reader.aclose()
        await reader.run.wait(PATIENCE)
        if how == "trimmed":
            head = await reader.run.status()
            first = await store.logs.trim(reader.run.id, head.tail)
            assert first > cursor.seq + 1
        else:
            await store.runs.drop(reader.run.id)
        if how == "flushed":  # and the same run begins anew
            await client.start("count", 5, id=reader.run.id)
    async with a_client(store) as client:
        resumed = client.run(reader.run.id)
        with pytest.raises(loom.LogNotFound if how == "dropped" else loom.CursorExpired) as raised:
            await anext(resumed.chunks(after=cursor))
        if how == "trimmed":
            with pytest.raises(loom.CursorExpired):
                await anext(resumed.chunks())
            left = [chunk async for chunk in resumed.chunks(after=raised.value.details["earliest"])]
            assert [chunk.seq for chunk in left] == list(range(first, head.tail + 1))


async def test_store_unreachable_while_running(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Readers wait and resume; a worker stops at the end of its lease and writes nothing after."""
    monkeypatch.setattr("loom.engine.run.worker.CLAIM_WAIT", LEASE / 5)
    mine, theirs = FaultStore(store), FaultStore(store)
    loop = asyncio.get_running_loop()
    async with a_client(theirs) as client, a_worker(mine) as worker, reading(client, "continue") as reader:
        await reader.until(lambda chunk: chunk.data == "attempt 1")
        appended = len(mine.appended)
        with theirs.outage():
            mine.out = True
            cut = loop.time()
            await worker._tasks.wait_all(PATIENCE)
            assert len(worker) == 0
            assert loop.time() - cut <= LEASE + 1.0
            assert data_in(reader.seen) == ["attempt 1"]
            async with a_worker(store, name="heir"):
                page = await store.logs.read(reader.run.id, reader.seen[-1].cursor, wait=PATIENCE)
                assert page.batches
                waiting = spawn(reader.until(lambda chunk: chunk.data == "attempt 2"), "waiting")
                assert not (await asyncio.wait({waiting}, timeout=LEASE / 10))[0]
                theirs.out = False
                theirs.tell_all(Notice())
                await waiting
                await reader.run.send("go")
                await reader.end()
        assert len(mine.appended) == appended
        mine.out = False
    assert reader.story == [
        ("start", 1, 0), "attempt 1", ("start", 2, 2), "attempt 2", "attempt 2 goes on", "complete",
    ]  # fmt: skip


async def test_cancel_before_any_worker_has_claimed_it(store: Store) -> None:
    """`error {cancelled}`, no `start`."""
    async with a_client(store) as client, reading(client, "speak") as reader:
        await reader.run.cancel()
        await reader.end()
        assert reader.story == [("error", "cancelled")]
        late = FaultStore(store)
        await acknowledges(late)
        assert (await store.runs.get(reader.run.id)).attempt == 0
        assert len(await chunks_in(store, reader.run.id)) == 1

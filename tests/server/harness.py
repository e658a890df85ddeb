"""A real server on a real socket, over a memory store that a test writes itself, and a client that hides nothing."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, suppress
from typing import Any

from loom.engine.declare.registry import Registry
from loom.engine.follow.transport import StoreTransport
from loom.engine.run.attempt import Resources
from loom.engine.run.worker import Worker
from loom.model.chunk import Chunk, Page
from loom.model.cursor import Cursor
from loom.model.ports import Fence, InlineSink, closing
from loom.model.run import ALL_RUNS, Meta, RunFilter, Start
from loom.server.app import Gateway, Times, create_app
from loom.server.http.address import Address
from loom.server.serve import serving
from loom.stores.memory import MemoryStore
from loom.wire.json import decode, encode, make_batch
from loom.wire.sse import Decoder, Event

PATIENCE = 10.0
"""Whatever a test waits for comes within this time, or the test fails."""


class WatchedTransport(StoreTransport):
    """The real one; it tells what it was asked, and has the troubles it is told to have."""

    def __init__(self, store: MemoryStore, registry: Registry | None) -> None:
        super().__init__(store, registry)
        self.touched: asyncio.Queue[str] = asyncio.Queue()
        self.following = 0
        self.released = asyncio.Event()
        self.trouble: dict[str, Exception] = {}
        self.pages: asyncio.Queue[Page] = asyncio.Queue()
        self.reads: asyncio.Queue[str] = asyncio.Queue()
        self.stumbled = asyncio.Event()

    def follow(
        self,
        run: str,
        after: Cursor | None = None,
        *,
        attach: bool = True,
        sink: InlineSink | None = None,
        limit_bytes: int | None = None,
    ) -> AsyncGenerator[Page, None]:
        return self._follow(run, after, attach, sink, limit_bytes)

    async def _follow(
        self, run: str, after: Cursor | None, attach: bool, sink: InlineSink | None, limit_bytes: int | None
    ) -> AsyncGenerator[Page, None]:
        self.following += 1
        watched = None if sink is None else _WatchedSink(self, sink)
        try:
            following = super().follow(run, after, attach=attach, sink=watched, limit_bytes=limit_bytes)
            async with aclosing(following) as pages:
                async for page in pages:
                    self._stumble("follow")
                    self.pages.put_nowait(page)
                    yield page
        finally:
            self.following -= 1
            self.released.set()

    async def heartbeat(self, run: str) -> None:
        self._stumble("heartbeat")
        self.touched.put_nowait(run)
        await super().heartbeat(run)

    async def read(self, run: str, after: Cursor | None, *, limit: int, wait: float) -> Page:
        self.reads.put_nowait(run)
        return await super().read(run, after, limit=limit, wait=wait)

    async def list_runs(self, filter: RunFilter = ALL_RUNS, **options: Any) -> list[Any]:
        self._stumble("list_runs")
        return await super().list_runs(filter, **options)

    async def head(self, run: str, *, full: bool = True) -> Any:
        self._stumble("head")
        return await super().head(run, full=full)

    async def start(self, start: Start) -> Any:
        self._stumble("start")
        return await super().start(start)

    def _stumble(self, call: str) -> None:
        if call in self.trouble:
            self.stumbled.set()
            raise self.trouble[call]


class _WatchedSink:
    """The real one; it tells its transport what it was given."""

    def __init__(self, transport: WatchedTransport, sink: InlineSink) -> None:
        self._transport = transport
        self._sink = sink

    def deliver(self, page: Page) -> bool:
        if "follow" in self._transport.trouble or not self._sink.deliver(page):
            return False
        self._transport.pages.put_nowait(page)
        return True


class Rig:
    """The server, and the pen that writes the runs it shows."""

    def __init__(self, app: Gateway, address: Address, store: MemoryStore, transport: WatchedTransport) -> None:
        self.app = app
        self.address = address
        self.store = store
        self.transport = transport
        self._pens: dict[str, tuple[Fence, int]] = {}

    async def begin(self, run: str = "r", actor: str = "a", **meta: Any) -> Cursor:
        """A run that has said `start`."""
        await self.store.runs.create(Meta(run=run, actor=actor, **meta))
        fence = await self.store.logs.fence(run, "token")
        self._pens[run] = (fence, 0)
        return await self.say(run, Chunk("start", {"attempt": 1, "kept_through": 0}))

    async def say(self, run: str, *chunks: Chunk[Any], end: bool = False) -> Cursor:
        fence, tail = self._pens[run]
        commit = closing(chunks[-1]) if end else None
        cursor = await self.store.logs.append(run, make_batch(fence.epoch, tail + 1, chunks), commit)
        self._pens[run] = (fence, tail + len(chunks))
        return cursor

    async def end(self, run: str = "r") -> Cursor:
        return await self.say(run, Chunk("complete", "done"), end=True)

    async def ask(self, method: str, path: str, body: Any = None, **options: Any) -> Reply:
        return await ask(self.address, method, path, body, **options)

    def viewer(self, path: str, **options: Any) -> AbstractAsyncContextManager[Viewer]:
        return viewer(self.address, path, **options)


@asynccontextmanager
async def rig(
    registry: Registry | None = None,
    *,
    worker: bool = False,
    resources: Resources | None = None,
    times: Times | None = None,
    **options: Any,
) -> AsyncIterator[Rig]:
    async with MemoryStore() as store:
        transport = WatchedTransport(store, registry)
        app = create_app(transport, times=times, **options)
        async with serving(app, port=0) as address:
            if worker:
                assert registry is not None
                async with Worker(store, registry, resources=resources):
                    yield Rig(app, address, store, transport)
            else:
                yield Rig(app, address, store, transport)
        await transport.aclose()


@asynccontextmanager
async def gateway(**options: Any) -> AsyncIterator[Gateway]:
    async with MemoryStore() as store:
        transport = StoreTransport(store)
        yield create_app(transport, **options)
        await transport.aclose()


# --- a client --------------------------------------------------------------------------------------------------------


class Reply:
    """An answer as it came."""

    def __init__(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    def header(self, name: str) -> str | None:
        found = [value for key, value in self.headers if key == name]
        assert len(found) <= 1, f"{name} is given {len(found)} times"
        return found[0] if found else None

    @property
    def json(self) -> Any:
        assert self.header("content-type") == "application/json"
        return decode(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The error, which has its one form."""
        (key,) = self.json
        assert key == "error"
        error: dict[str, Any] = self.json["error"]
        assert list(error) == ["code", "message", "retryable", "details"]
        return error


def request_bytes(method: str, path: str, headers: dict[str, str], body: bytes) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


async def ask(
    address: Address, method: str, path: str, body: Any = None, *, headers: dict[str, str] | None = None
) -> Reply:
    """One request on a connection of its own. A `body` that is no bytes is sent as JSON."""
    given = {"Host": f"{address.host}:{address.port}", "Connection": "close"}
    data = b""
    if body is not None:
        data = body if isinstance(body, bytes) else encode(body)
        given |= {"Content-Type": "application/json", "Content-Length": str(len(data))}
    given |= headers or {}
    raw = request_bytes(method, path, {name: value for name, value in given.items() if value != "-"}, data)
    return await ask_raw(address, raw, head=method == "HEAD")


@asynccontextmanager
async def connection(
    address: Address, **options: Any
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection, closed for good when it is left."""
    where: dict[str, Any] = {} if "sock" in options else {"host": address.host, "port": address.port}
    reader, writer = await asyncio.open_connection(**where, **options)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def ask_raw(address: Address, raw: bytes, *, head: bool = False) -> Reply:
    """What comes back for these bytes, read to the connection's end."""
    async with asyncio.timeout(PATIENCE):
        async with connection(address) as (reader, writer):
            writer.write(raw)
            await writer.drain()
            reply = await read_head(reader)
            rest = await reader.read()
    if reply.header("transfer-encoding") == "chunked":
        rest = b"".join(_dechunked(rest))
    elif not head:
        assert len(rest) == int(reply.header("content-length") or 0)
    return Reply(reply.status, reply.headers, rest)


async def read_head(reader: asyncio.StreamReader) -> Reply:
    status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
    headers = [(name.lower(), value) for name, _, value in (line.partition(": ") for line in lines)]
    return Reply(int(status.split()[1]), headers, b"")


def _dechunked(data: bytes) -> list[bytes]:
    pieces = []
    while data:
        size, _, data = data.partition(b"\r\n")
        pieces.append(data[: int(size, 16)])
        data = data[int(size, 16) + 2 :]
    return pieces


class Viewer:
    """A connection that reads an event stream, piece by piece as the server sent it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, reply: Reply) -> None:
        self.reader = reader
        self.writer = writer
        self.reply = reply
        self.ended = False
        self.decoder = Decoder()
        self._events: list[Event] = []

    async def piece(self) -> bytes:
        """What one send of the server brought; b"" at the answer's orderly end."""
        async with asyncio.timeout(PATIENCE):
            size = int(await self.reader.readline(), 16)
            data = await self.reader.readexactly(size + 2)
        self.ended = not size
        return data[:-2]

    async def event(self) -> Event:
        while not self._events:
            piece = await self.piece()
            assert piece, "the stream has ended"
            self._events = self.decoder.feed(piece)
        return self._events.pop(0)

    async def rest(self) -> list[Event]:
        """All events until the answer's orderly end."""
        events, self._events = self._events, []
        while piece := await self.piece():
            events += self.decoder.feed(piece)
        return events


@asynccontextmanager
async def viewer(
    address: Address,
    path: str,
    *,
    method: str = "GET",
    headers: dict[str, str] | None = None,
    body: Any = None,
    receive_buffer: int | None = None,
) -> AsyncIterator[Viewer]:
    """Follow an event stream over a socket of one's own."""
    sock = socket.socket()
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.setblocking(False)
    await asyncio.wait_for(asyncio.get_running_loop().sock_connect(sock, (address.host, address.port)), PATIENCE)
    given = {"Host": f"{address.host}:{address.port}", **(headers or {})}
    data = b"" if body is None else encode(body)
    if data:
        given |= {"Content-Type": "application/json", "Content-Length": str(len(data))}
    async with connection(address, sock=sock, limit=4096 if receive_buffer else 2**20) as (reader, writer):
        writer.write(request_bytes(method, path, given, data))
        reply = await asyncio.wait_for(read_head(reader), PATIENCE)
        yield Viewer(reader, writer, reply)


# --- its runs -------------------------------------------------------------------------------------------------------


def run_of(reply: Reply) -> str:
    run = reply.header("x-request-id")
    assert run is not None
    assert reply.header("location") == f"/runs/{run}"
    return run


async def state_of(r: Rig, run: str) -> str:
    """The run's state, once it has ended."""
    async with asyncio.timeout(PATIENCE):
        async for page in r.transport.follow(run):
            if page.ended:
                break
    return (await r.store.runs.get(run)).state


async def the_run(r: Rig) -> str:
    """The one that there is, once it is there."""
    async with asyncio.timeout(PATIENCE):
        while not (heads := await r.store.runs.list_runs()):  # noqa: ASYNC110 (nothing tells of it but this)
            await asyncio.sleep(0)
    return heads[0].meta.run


async def told_to(r: Rig, run: str) -> bytes:
    """The first thing that the run was told."""
    page = await r.store.logs.read(f"{run}/in", None, wait=PATIENCE)
    return page.batches[0].payload

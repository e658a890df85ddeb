"""Serving: the address, the bounds that uvicorn lacks, the end."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from loom.engine.transport import StoreTransport
from loom.model import limits
from loom.model.chunk import Chunk
from loom.model.errors import UsageError
from loom.server.app import Gateway, create_app
from loom.server.serve import Address, BoundedProtocol, serving
from loom.stores.memory import MemoryStore
from loom.wire.sse import Decoder

from .harness import PATIENCE, Rig, ask, ask_raw, connection, read_head, rig

pytestmark = pytest.mark.anyio


@contextlib.asynccontextmanager
async def gateway(**options: Any) -> AsyncIterator[Gateway]:
    async with MemoryStore() as store:
        transport = StoreTransport(store)
        yield create_app(transport, **options)
        await transport.aclose()


# --- the address -----------------------------------------------------------------------------------------------------


async def test_any_free_port() -> None:
    async with gateway() as app, serving(app, port=0) as address:
        assert address.port > 0
        assert address.url == f"http://127.0.0.1:{address.port}"
        assert (await ask(address, "GET", "/healthz")).json == {"status": "ok"}


async def test_a_port_in_use_is_told_in_one_line() -> None:
    async with gateway() as app, serving(app, port=0) as address:
        with pytest.raises(UsageError, match=f"port {address.port} is in use") as refused:
            async with serving(app, port=address.port):
                pass
        assert "\n" not in refused.value.message


@pytest.mark.parametrize("host", ["no such host", "256.0.0.1", "x" * 300])
async def test_an_address_that_cannot_be_had(host: str) -> None:
    async with gateway() as app:
        with pytest.raises(UsageError):
            async with serving(app, host=host, port=0):
                pass


@pytest.mark.parametrize("host", ["0.0.0.0", "::", ""])
async def test_beyond_loopback_a_key_is_needed(host: str) -> None:
    async with gateway() as app:
        with pytest.raises(UsageError, match="LOOM_API_KEYS"):
            async with serving(app, host=host, port=0):
                pass
    async with gateway(keys=["k"]) as app, serving(app, host=host, port=0) as address:
        assert (await ask(Address("127.0.0.1", address.port), "GET", "/runs")).status == 401


async def test_a_given_socket() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        async with gateway() as app, serving(app, sock=sock) as address:
            assert address.port == sock.getsockname()[1]
            assert (await ask(address, "GET", "/healthz")).status == 200
        assert sock.fileno() == -1


async def test_a_given_socket_beyond_loopback_needs_a_key() -> None:
    with socket.create_server(("0.0.0.0", 0)) as sock:
        async with gateway() as app:
            with pytest.raises(UsageError, match="LOOM_API_KEYS"):
                async with serving(app, sock=sock):
                    pass


@pytest.mark.parametrize(
    ("address", "url"),
    [
        (Address("127.0.0.1", 1), "http://127.0.0.1:1"),
        (Address("0.0.0.0", 1), "http://127.0.0.1:1"),
        (Address("::1", 1), "http://[::1]:1"),
        (Address("::", 1), "http://[::1]:1"),
        (Address("10.0.0.1", 80), "http://10.0.0.1:80"),
    ],
)
def test_urls(address: Address, url: str) -> None:
    assert address.url == url


async def test_the_lifespan_is_open_while_it_serves() -> None:
    told: list[str] = []

    @contextlib.asynccontextmanager
    async def lifespan(app: Gateway) -> AsyncIterator[None]:
        told.append("opened")
        yield
        told.append("closed")

    async with gateway(lifespan=lifespan) as app:
        async with serving(app, port=0):
            assert told == ["opened"]
        assert told == ["opened", "closed"]


async def test_a_failing_lifespan_is_told_as_it_is() -> None:
    @contextlib.asynccontextmanager
    async def lifespan(app: Gateway) -> AsyncIterator[None]:
        raise ZeroDivisionError("no database")
        yield

    async with gateway(lifespan=lifespan) as app:
        with pytest.raises(ZeroDivisionError, match="no database"):
            async with serving(app, port=0):
                pass


async def test_an_error_in_the_block_stops_the_server() -> None:
    async with gateway() as app:
        with pytest.raises(ZeroDivisionError):
            async with serving(app, port=0) as address:
                raise ZeroDivisionError
        with pytest.raises(OSError):
            await asyncio.open_connection(address.host, address.port)


# --- bounds ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "raw",
    [
        b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 70_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 20_000 + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 300_000,
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 100_000,
    ],
)
async def test_a_head_that_is_too_large(raw: bytes) -> None:
    async with rig() as r:
        reply = await ask_raw(r.address, raw)
        assert (reply.status, reply.error["code"]) == (431, "headers_too_large")


@pytest.mark.parametrize(
    "raw", [b"\x16\x03\x01\x02\x00\x01\x00", b"HELO x\r\n", b"GET / HTTP/9.9\r\n\r\n", b"{}\r\n\r\n"]
)
async def test_what_is_not_http(raw: bytes) -> None:
    async with rig() as r:
        reply = await ask_raw(r.address, raw)
        assert (reply.status, reply.error["code"]) == (400, "protocol_error")


async def test_a_slow_head_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HEAD_TIME", 0.1)
    async with rig() as r:
        reply = await ask_raw(r.address, b"GET / HTTP/1.1\r\nHost: local")
        assert (reply.status, reply.error["code"]) == (408, "request_timeout")


async def test_a_silent_connection_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HEAD_TIME", 0.1)
    async with rig() as r, connection(r.address) as (reader, _):
        assert await asyncio.wait_for(reader.read(), PATIENCE) == b""


async def test_a_slow_second_head_is_cut_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HEAD_TIME", 0.1)
    async with rig() as r, connection(r.address) as (reader, writer):
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        first = await read_head(reader)
        await reader.readexactly(int(first.header("content-length") or 0))
        writer.write(b"\r\n")
        assert await asyncio.wait_for(reader.read(), PATIENCE) != b"", "it is told why"


async def test_a_slow_body_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BODY_TIME", 0.1)
    async with rig() as r:
        head = b"POST /runs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n"
        reply = await ask_raw(r.address, head + b"Content-Length: 100\r\n\r\n{")
        assert (reply.status, reply.error["code"]) == (408, "request_timeout")


async def test_connections_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CONNECTIONS", 2)
    async with rig() as r:
        await r.begin()
        async with r.viewer("/runs/r/events") as one, r.viewer("/runs/r/events") as two:
            await one.event(), await two.event()
            reply = await r.ask("GET", "/healthz")
            assert (reply.status, reply.error["code"]) == (503, "unavailable")
        assert (await r.ask("GET", "/healthz")).status in (200, 503)


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with rig() as r:
        body = b'{"actor": "a", "input": "' + b"x" * 200_000 + b'"}'
        post = b"POST /runs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        post += b"Content-Length: %d\r\n\r\n" % len(body) + body
        get = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
        async with connection(r.address) as (reader, writer):
            writer.write(post + get + post + get)
            statuses = []
            for _ in range(4):
                reply = await asyncio.wait_for(read_head(reader), PATIENCE)
                await reader.readexactly(int(reply.header("content-length") or 0))
                statuses.append(reply.status)
            assert statuses == [201, 200, 201, 200]


async def test_an_error_does_not_break_into_a_stream() -> None:
    async with rig() as r:
        await r.begin()
        async with r.viewer("/runs/r/events") as viewer:
            await viewer.event()
            viewer.writer.write(b"\x00 garbage\r\n\r\n")
            assert await asyncio.wait_for(viewer.reader.read(), PATIENCE) == b""


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("count", [1, 50])
async def test_who_leaves_with_requests_behind_a_stream_is_heard_of(count: int, how: str) -> None:
    async with rig() as r:
        await r.begin()
        async with r.viewer("/runs/r/events") as viewer:
            await viewer.event()
            viewer.writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" * count)
            await viewer.writer.drain()
            if how == "reset":
                sock = viewer.writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            viewer.writer.close()
            await asyncio.wait_for(r.transport.released.wait(), PATIENCE)
        assert r.app.viewers == 0


GARBAGE = b"\x00 garbage\r\n\r\n"
GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize("behind", [GET + GARBAGE, GET * 20, GET + GET[:-2] + b"X: " + b"x" * 300_000])
async def test_what_waits_behind_a_stream_is_bounded(behind: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PIPELINED", 10)
    async with rig() as r:
        await r.begin()
        async with r.viewer("/runs/r/events") as viewer:
            await viewer.event()
            viewer.writer.write(behind)
            with contextlib.suppress(ConnectionResetError):  # some of it was not read
                assert await asyncio.wait_for(viewer.reader.read(), PATIENCE) == b"", "an answer broke into the stream"
            await asyncio.wait_for(r.transport.released.wait(), PATIENCE)


async def test_bodies_that_wait_behind_a_stream_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "DISCARD_BYTES", 1 << 20)
    post = b"POST /runs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50000\r\n\r\n" + b"x" * 50_000
    async with rig() as r:
        await r.begin()
        async with r.viewer("/runs/r/events") as viewer:
            await viewer.event()
            viewer.writer.write(post * 40)
            await asyncio.wait_for(r.transport.released.wait(), PATIENCE)


CHUNKED = b"Host: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
FRAMING = [
    pytest.param(b"1\r\n{\r\n0\r\n" + b"X: y\r\n" * 100_000, id="trailers"),
    pytest.param(b"1\r\n{\r\n0\r\nX: " + b"x" * 600_000, id="one trailer"),
    pytest.param(b"1;" + b"x" * 600_000, id="extension"),
]


@pytest.mark.parametrize("framing", FRAMING)
async def test_what_is_around_a_chunked_body_is_bounded(framing: bytes) -> None:
    async with rig() as r:
        reply = await ask_raw(r.address, b"POST /runs HTTP/1.1\r\n" + CHUNKED + framing)
        assert (reply.status, reply.error["code"]) == (431, "headers_too_large")


@pytest.mark.parametrize("framing", FRAMING)
async def test_also_behind_an_answer(framing: bytes) -> None:
    async with rig() as r, connection(r.address) as (reader, writer):
        writer.write(b"GET /healthz HTTP/1.1\r\n" + CHUNKED + b"1\r\n{\r\n")
        reply = await asyncio.wait_for(read_head(reader), PATIENCE)
        await reader.readexactly(int(reply.header("content-length") or 0))
        writer.write(framing)
        with contextlib.suppress(ConnectionResetError):
            assert await asyncio.wait_for(reader.read(), PATIENCE) == b"", "one request has two answers"


async def test_trailers_are_no_headers() -> None:
    seen: list[int] = []
    real = BoundedProtocol.on_message_complete

    def on_message_complete(self: BoundedProtocol) -> None:
        seen.append(len(self.headers))
        real(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BoundedProtocol, "on_message_complete", on_message_complete)
        async with rig() as r:
            body = b'd\r\n{"actor":"a"}\r\n0\r\nX: y\r\nIdempotency-Key: k\r\n\r\n'
            head = b"POST /runs HTTP/1.1\r\nConnection: close\r\n" + CHUNKED
            assert (await ask_raw(r.address, head + body)).status == 201
    assert seen == [4]


async def test_tiny_chunks_are_taken() -> None:
    async with rig() as r:
        body = b"".join(b"1\r\n%c\r\n" % byte for byte in b'{"actor": "a"' + b" " * 50_000 + b"}") + b"0\r\n\r\n"
        head = b"POST /runs HTTP/1.1\r\nConnection: close\r\n" + CHUNKED
        assert (await ask_raw(r.address, head + body)).status == 201


async def test_a_body_behind_its_answer_is_read_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "DISCARD_BYTES", 1 << 20)
    async with rig() as r, connection(r.address) as (reader, writer):
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999999\r\n\r\n")
        reply = await asyncio.wait_for(read_head(reader), PATIENCE)
        await reader.readexactly(int(reply.header("content-length") or 0))
        with contextlib.suppress(ConnectionError):
            for _ in range(1000):
                writer.write(b"x" * 65536)
                await asyncio.wait_for(writer.drain(), PATIENCE)
            pytest.fail("all was read")


# --- HTTP/1.0 --------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def begun() -> AsyncIterator[Rig]:
    async with rig() as r:
        await r.begin()
        yield r


def old(request: bytes) -> bytes:
    return request + b" HTTP/1.0\r\nHost: localhost\r\n\r\n"


async def test_http_1_0_is_streamed_to_without_chunks() -> None:
    async with begun() as r, r.viewer("/runs/r/events") as other, connection(r.address) as (reader, writer):
        await other.event()  # with company, chunks are written past uvicorn
        writer.write(old(b"GET /runs/r/events"))
        reply = await asyncio.wait_for(read_head(reader), PATIENCE)
        body = await asyncio.wait_for(reader.readuntil(b"\n\n"), PATIENCE)
        for index in range(3):
            await r.say("r", Chunk("data", index))
            body += await asyncio.wait_for(reader.readuntil(b"\n\n"), PATIENCE)
        await r.end()
        body += await asyncio.wait_for(reader.read(), PATIENCE)
    assert (reply.status, reply.header("transfer-encoding"), reply.header("connection")) == (200, None, "close")
    assert [event.type for event in Decoder().feed(body)] == ["start", "data", "data", "data", "complete"]


async def test_http_1_0_is_answered_with_a_length() -> None:
    async with rig() as r:
        assert (await ask_raw(r.address, old(b"GET /healthz"))).json == {"status": "ok"}
        assert (await ask_raw(r.address, old(b"HEAD /healthz"), head=True)).body == b""


async def test_connections_have_the_systems_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    sockets: list[Any] = []
    real = BoundedProtocol.connection_made

    def connection_made(self: BoundedProtocol, transport: asyncio.Transport) -> None:
        sockets.append(transport.get_extra_info("socket"))
        real(self, transport)

    monkeypatch.setattr(BoundedProtocol, "connection_made", connection_made)
    async with rig() as r:
        await r.begin()
        async with r.viewer("/runs/r/events"):
            (sock,) = sockets
            for option, value in (
                (getattr(socket, "TCP_USER_TIMEOUT", None), int(limits.STALLED_VIEWER * 1000)),
                (getattr(socket, "TCP_NOTSENT_LOWAT", None), limits.UNSENT_BYTES),
            ):
                assert option is None or sock.getsockopt(socket.IPPROTO_TCP, option) == value


# --- the end ---------------------------------------------------------------------------------------------------------


async def test_stopping_ends_streams_in_order_and_takes_no_new_connections() -> None:
    async with contextlib.AsyncExitStack() as server, contextlib.AsyncExitStack() as clients:
        r = await server.enter_async_context(rig())
        await r.begin()
        viewer = await clients.enter_async_context(r.viewer("/runs/r/events"))
        await viewer.event()
        async with connection(r.address) as (idle, _):
            stopping = asyncio.ensure_future(server.aclose())
            assert await viewer.rest() == []
            with pytest.raises(OSError):
                await asyncio.open_connection(r.address.host, r.address.port)
            assert await idle.read() == b""
            await asyncio.wait_for(stopping, PATIENCE)


async def test_stopping_lets_requests_finish() -> None:
    async with rig() as r:
        head = b"POST /runs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n"
        async with connection(r.address) as (reader, writer):
            writer.write(head)
            await r.ask("GET", "/healthz")
            r.app.end_streams()
            writer.write(b'{"actor":  "a"}')
            assert (await asyncio.wait_for(read_head(reader), PATIENCE)).status == 201


async def test_stopping_does_not_wait_for_what_never_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SHUTDOWN", 0.1)
    async with contextlib.AsyncExitStack() as clients:
        async with rig() as r:
            reader, writer = await clients.enter_async_context(connection(r.address))
            writer.write(b"POST /runs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n")
            await r.ask("GET", "/healthz")
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(), PATIENCE) == b""


SCRIPT = """
import asyncio, sys
from loom.engine.transport import StoreTransport
from loom.server.app import create_app
from loom.server.serve import serve
from loom.stores.memory import MemoryStore

serve(create_app(StoreTransport(MemoryStore())), port=0, announce=lambda address: print(address.port, flush=True))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signals_stop_it(number: signal.Signals, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    process = await asyncio.create_subprocess_exec(
        sys.executable, script, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    port = int(await asyncio.wait_for(process.stdout.readline(), PATIENCE))
    address = Address("127.0.0.1", port)
    assert (await ask(address, "POST", "/runs", {"actor": "a", "id": "r"})).status == 201
    async with connection(address) as (reader, writer):
        writer.write(b"GET /runs/r/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await read_head(reader)).status == 200
        process.send_signal(number)
        assert await asyncio.wait_for(reader.read(), PATIENCE) == b"0\r\n\r\n"
        assert await asyncio.wait_for(process.wait(), PATIENCE) == 0
        assert await process.stderr.read() == b""

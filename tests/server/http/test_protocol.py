"""HTTP/1.1 within bounds: of heads, of bodies and what is around them, of what waits behind an answer; and HTTP/1.0."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest

from loom.model import limits
from loom.model.chunk import Chunk
from loom.server.http.protocol import BoundedProtocol
from loom.wire.sse import Decoder
from tests.server.harness import PATIENCE, Rig, ask_raw, connection, read_head, rig

pytestmark = pytest.mark.anyio


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
    monkeypatch.setattr("loom.server.http.protocol.HEAD_TIME", 0.1)
    async with rig() as r:
        reply = await ask_raw(r.address, b"GET / HTTP/1.1\r\nHost: local")
        assert (reply.status, reply.error["code"]) == (408, "request_timeout")


async def test_a_silent_connection_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loom.server.http.protocol.HEAD_TIME", 0.1)
    async with rig() as r, connection(r.address) as (reader, _):
        assert await asyncio.wait_for(reader.read(), PATIENCE) == b""


async def test_a_slow_second_head_is_cut_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loom.server.http.protocol.HEAD_TIME", 0.1)
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
    monkeypatch.setattr("loom.server.http.protocol.PIPELINED", 10)
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

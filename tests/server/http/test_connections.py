"""Connections that nobody has a key for: bounded in time, and giving way to those that come after them."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
from collections.abc import AsyncIterator

import pytest

from loom.model import limits
from loom.server.http.connections import Connections, max_connections, network_of
from tests.server.harness import PATIENCE, Rig, connection, read_head, rig

pytestmark = pytest.mark.anyio

HOST = b"Host: localhost\r\n"
GET = b"GET /runs HTTP/1.1\r\n" + HOST + b"\r\n"
WITHOUT_A_KEY = {
    "silent": b"",
    "half a head": b"GET / HTTP/1.1\r\nHost: loc",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "a body that never ends": b"POST /nope HTTP/1.1\r\n" + HOST + b"Content-Length: 1000000\r\n\r\n{",
    "a body of a route": b"POST /runs HTTP/1.1\r\n" + HOST + b"Content-Length: 1000000\r\n\r\n{",
    "chunks that never end": b"POST /runs HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{",
    "an awaited 100": b"POST /runs HTTP/1.1\r\n" + HOST + b"Expect: 100-continue\r\nContent-Length: 9\r\n\r\n",
    "kept alive": GET,
    "a probe kept alive": b"GET /healthz HTTP/1.1\r\n" + HOST + b"\r\n",
    "a probe with a body": b"GET /healthz HTTP/1.1\r\n" + HOST + b"Content-Length: 1000000\r\n\r\n",
    "HEAD": b"HEAD /runs HTTP/1.1\r\n" + HOST + b"\r\n",
    "OPTIONS": b"OPTIONS /runs HTTP/1.1\r\n" + HOST + b"\r\n",
    "nothing there": b"GET /nope HTTP/1.1\r\n" + HOST + b"\r\n",
    "another method": b"PROPFIND /runs HTTP/1.1\r\n" + HOST + b"\r\n",
    "an event stream": b"GET /runs/r/events HTTP/1.1\r\n" + HOST + b"Accept: text/event-stream\r\n\r\n",
    "upgrade": b"GET /runs HTTP/1.1\r\n" + HOST + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    "pipelined, never read": GET * 300,
    "a request behind": GET + b"POST /runs HTTP/1.1\r\n" + HOST + b"Content-Length: 1000000\r\n\r\n",
}


@contextlib.asynccontextmanager
async def opened(r: Rig, raw: bytes, count: int, **options: int) -> AsyncIterator[list[socket.socket]]:
    """Connections that have sent these bytes, and read nothing."""
    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as stack:
        found = []
        for _ in range(count):
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            await loop.sock_connect(sock, (r.address.host, r.address.port))
            with contextlib.suppress(ConnectionError):
                await loop.sock_sendall(sock, raw)
            found.append(sock)
        yield found


async def wait_closed(sock: socket.socket) -> None:
    async with asyncio.timeout(PATIENCE):
        with contextlib.suppress(ConnectionError):
            while await asyncio.get_running_loop().sock_recv(sock, 65536):
                pass


@pytest.mark.parametrize("what", WITHOUT_A_KEY)
async def test_connections_without_a_key_keep_nobody_out(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CONNECTIONS", 20)
    async with rig(keys=["k"]) as r:
        await r.begin()
        key = {"Authorization": "Bearer k"}
        async with r.viewer("/runs/r/events", headers=key) as viewer:
            await viewer.event()
            async with opened(r, WITHOUT_A_KEY[what], 25):
                assert (await r.ask("GET", "/healthz")).status == 200
                assert (await r.ask("GET", "/runs", headers=key)).status == 200
                await r.end()
                assert [event.type for event in await viewer.rest()] == ["complete"], "a viewer had to go"


@pytest.mark.parametrize("what", [what for what in WITHOUT_A_KEY if what != "pipelined, never read"])
async def test_connections_without_a_key_end(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By themselves, also when a byte comes now and then."""
    monkeypatch.setattr("loom.server.http.protocol.HEAD_TIME", 0.2)
    for limit in ("BODY_TIME", "LINGER", "KEEP_ALIVE"):
        monkeypatch.setattr(limits, limit, 0.2)
    async with rig(keys=["k"]) as r, opened(r, WITHOUT_A_KEY[what], 1) as (sock,):
        closed = asyncio.ensure_future(wait_closed(sock))
        with contextlib.suppress(ConnectionError):
            while not closed.done():
                await asyncio.get_running_loop().sock_sendall(sock, b"x")
                await asyncio.wait((closed,), timeout=0.05)
        await closed


async def test_a_body_that_ends_after_its_answer_leaves_the_connection_to_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "KEEP_ALIVE", 0.2)
    async with rig() as r, connection(r.address) as (reader, writer):
        writer.write(b"POST /nope HTTP/1.1\r\n" + HOST + b"Content-Length: 10\r\n\r\n")
        for rest in (b"x" * 10 + GET, b""):
            reply = await asyncio.wait_for(read_head(reader), PATIENCE)
            await reader.readexactly(int(reply.header("content-length") or 0))
            writer.write(rest)
        assert reply.status == 200
        assert await asyncio.wait_for(reader.read(), PATIENCE) == b"", "and it is closed when none comes"


async def test_one_address_keeps_few_idle_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest of them goes."""
    monkeypatch.setattr("loom.server.http.connections.NETWORK_IDLE", 3)
    async with rig() as r, opened(r, GET, 3) as first, opened(r, GET, 2) as second:
        for sock in first[:2]:
            await wait_closed(sock)
        for sock in (*first[2:], *second):
            await asyncio.get_running_loop().sock_sendall(
                sock, GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
            )
            await wait_closed(sock)


async def test_requests_under_way_are_not_counted_as_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loom.server.http.connections.NETWORK_IDLE", 1)
    async with rig() as r:
        await r.begin()
        async with r.viewer("/runs/r/events") as one, r.viewer("/runs/r/events") as two, opened(r, GET, 5):
            await one.event(), await two.event()
            await r.end()
            assert [[event.type for event in await viewer.rest()] for viewer in (one, two)] == [["complete"]] * 2


async def test_a_request_that_comes_in_is_not_cut_off_as_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loom.server.http.connections.NETWORK_IDLE", 2)
    loop = asyncio.get_running_loop()
    async with rig() as r, opened(r, GET, 1) as (sock,):
        await loop.sock_recv(sock, 65536)
        await loop.sock_sendall(sock, GET[:-9])
        async with opened(r, GET, 3) as others:
            await wait_closed(others[0])
            await loop.sock_sendall(sock, GET[-9:])
            assert (await loop.sock_recv(sock, 65536)).startswith(b"HTTP/1.1 200 ")


async def test_when_all_are_held_a_newcomer_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CONNECTIONS", 2)
    async with rig() as r:
        await r.begin()
        async with r.viewer("/runs/r/events") as one, r.viewer("/runs/r/events") as two:
            await one.event(), await two.event()
            for _ in range(3):
                reply = await r.ask("GET", "/healthz")
                assert (reply.status, reply.error["code"]) == (503, "unavailable")


# --- pure ------------------------------------------------------------------------------------------------------------


class Stub:
    def __init__(self, state: Connections, network: str = "n") -> None:
        self.network = network
        self.evicted = False
        state.connections.add(self)  # type: ignore[arg-type]

    def evict(self) -> None:
        self.evicted = True


def test_the_one_that_waited_longest_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CONNECTIONS", 3)
    state = Connections()
    stubs = []
    for _ in range(3):
        stubs.append(Stub(state))
        assert state.admit(stubs[-1])
    state.hold(stubs[0])
    state.release(stubs[1])  # now the youngest
    assert state.admit(Stub(state))
    assert [stub.evicted for stub in stubs] == [False, False, True]
    assert state.admit(Stub(state))
    assert [stub.evicted for stub in stubs] == [False, True, True]


def test_one_that_begins_a_request_goes_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CONNECTIONS", 2)
    state = Connections()
    stubs = [Stub(state), Stub(state)]
    for stub in stubs:
        state.admit(stub)
    state.begin(stubs[0])
    state.hold(stubs[0])
    state.begin(stubs[0])  # pipelined: it stays held
    state.release(stubs[0])
    state.begin(stubs[1])
    state.admit(Stub(state))
    assert [stub.evicted for stub in stubs] == [True, False]


def test_nothing_is_remembered_of_connections_that_are_gone() -> None:
    state = Connections()
    for network in ("a", "b"):
        stub = Stub(state, network)
        state.admit(stub)
        state.hold(stub)
        state.release(stub)
        state.connections.clear()
        state.remove(stub)
        state.release(stub)  # the end of its last answer is heard of later
    assert not any((state._evictable, state._idle))


def test_a_process_that_may_open_few_files_takes_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    for soft, most in ((1024, 768), (1 << 20, limits.CONNECTIONS), (resource.RLIM_INFINITY, 10_000)):
        monkeypatch.setattr(resource, "getrlimit", lambda which, soft=soft: (soft, soft))
        assert max_connections() == most


@pytest.mark.parametrize(
    ("host", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3::4", "20010db800010002"),
        ("fe80::1%eth0", "fe80000000000000"),
        ("", ""),
    ],
)
def test_networks(host: str, network: str) -> None:
    assert network_of(host) == network

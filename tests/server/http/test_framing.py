"""Where a request ends: Upgrade is ignored, and nothing is read behind a request whose end is in doubt (RFC 9112)."""

from __future__ import annotations

import asyncio
import contextlib
import re
from itertools import pairwise

import pytest

from loom.model.errors import RemoteProtocolError
from loom.server.http.framing import ChunkedCoding, check_framing, without_upgrade
from tests.server.harness import PATIENCE, Rig, connection, read_head, rig

pytestmark = pytest.mark.anyio

HOST = b"Host: localhost\r\n"
CANARY = b"POST /runs/victim/cancel HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
START = b'{"actor": "a"}'
UPGRADES = [
    pytest.param(b"Connection: Upgrade\r\nUpgrade: x\r\n", id="unknown"),
    pytest.param(b"Upgrade: websocket\r\nConnection: keep-alive, uPGRADE\r\nSec-WebSocket-Version: 13\r\n", id="ws"),
    pytest.param(b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n", id="h2c"),
    pytest.param(b"Connection: Upgrade\r\nConnection: close, Upgrade\r\nUpgrade: a\r\nUpgrade: b, c\r\n", id="several"),
]


def sized(body: bytes) -> bytes:
    return b"Content-Length: %d\r\n\r\n" % len(body) + body


def chunked(body: bytes) -> bytes:
    return b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


async def exchange(r: Rig, *pieces: bytes) -> bytes:
    """All that comes back for these pieces, each of which is read by itself."""
    async with connection(r.address) as (reader, writer):
        for piece in pieces:
            with contextlib.suppress(ConnectionError):
                writer.write(piece)
                await writer.drain()
            await r.ask("GET", "/healthz")  # by then the server has read it
        async with asyncio.timeout(PATIENCE):
            return await reader.read()


def statuses(data: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 ([0-9]{3}) ", data)]


async def victim_is_untouched(r: Rig) -> bool:
    reply = await r.ask("GET", "/runs/victim")
    return bool(reply.json["state"] == "queued")


# --- Upgrade ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frame", [sized, chunked])
@pytest.mark.parametrize("upgrade", UPGRADES)
async def test_the_body_of_a_request_with_upgrade_is_its_body(upgrade: bytes, frame: object) -> None:
    """RFC 9110, section 7.8: a server that does not switch reads the request as if the field were not there."""
    assert callable(frame)
    async with rig() as r:
        await r.ask("POST", "/runs", {"actor": "a", "id": "victim"})
        head = b"POST /runs HTTP/1.1\r\nContent-Type: application/json\r\nConnection: close\r\n" + HOST + upgrade
        whole = head + frame(START)
        end = whole.index(b"\r\n\r\n") + 4
        for pieces in ((whole,), (whole[:end], whole[end:]), (whole[: end - 1], whole[end - 1 :])):
            assert statuses(await exchange(r, *pieces)) == [201]
        smuggled = head + frame(CANARY)
        end = smuggled.index(b"\r\n\r\n") + 4
        for pieces in ((smuggled,), (smuggled[:end], smuggled[end:])):
            assert statuses(await exchange(r, *pieces)) == [400], "the canary is no JSON"
        assert await victim_is_untouched(r)


async def test_what_follows_a_request_with_upgrade_is_answered() -> None:
    async with rig() as r:
        ask = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: x\r\n"
        last = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        assert statuses(await exchange(r, (ask + b"\r\n") * 20 + (ask + sized(CANARY)) * 20 + last)) == [200] * 41


async def test_connect_is_refused() -> None:
    async with rig() as r:
        await r.ask("POST", "/runs", {"actor": "a", "id": "victim"})
        for extra in (b"", b"Content-Length: 5\r\n", b"Connection: Upgrade\r\nUpgrade: x\r\n"):
            raw = b"CONNECT localhost:80 HTTP/1.1\r\n" + HOST + extra + b"\r\n" + CANARY
            assert statuses(await exchange(r, raw)) == [400]
        assert await victim_is_untouched(r)


# --- doubt -----------------------------------------------------------------------------------------------------------

CHUNKS = b"Transfer-Encoding: chunked\r\n\r\n"
IN_THE_HEAD = [
    b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    b"Content-Length: 0\r\nContent-Length: 0\r\n\r\n",
    b"Content-Length: 0\r\nContent-Length: 5\r\n\r\n",
    b"Content-Length: 0, 0\r\n\r\n",
    b"Content-Length: +0\r\n\r\n",
    b"Content-Length: -1\r\n\r\n",
    b"Content-Length: 0x0\r\n\r\n",
    b"Content-Length: \r\n\r\n",
    b"Content-Length: 18446744073709551616\r\n\r\n",
    b"Content-Length : 0\r\n\r\n",
    b"Content-Length: 0\r\n 0\r\n\r\n",
    b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    b"Transfer-Encoding: gzip\r\n\r\n0\r\n\r\n",
    b"Transfer-Encoding: identity\r\n\r\n",
    b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    b"Transfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n",
    b"Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n",
    b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    b"Transfer-Encoding: \r\n\r\n",
    b"Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n",
    b"X: a\nContent-Length: 0\r\n\r\n",
    b"X: a\rContent-Length: 0\r\n\r\n",
    b"X: a\0b\r\n\r\n",
    b" X: a\r\n\r\n",
    b"X: a\r\n\n",
    b"X\r\n\r\n",
]
IN_THE_BODY = [
    b"3\nabc\r\n0\r\n\r\n",
    b"3\r\nabc\n0\r\n\r\n",
    b"3\r\nabcd0\r\n\r\n",
    b"3\r\nabc0\r\n\r\n",
    b" 3\r\nabc\r\n0\r\n\r\n",
    b"3 \r\nabc\r\n0\r\n\r\n",
    b"0x3\r\nabc\r\n0\r\n\r\n",
    b"+3\r\nabc\r\n0\r\n\r\n",
    b"-3\r\nabc\r\n0\r\n\r\n",
    b"\r\nabc\r\n0\r\n\r\n",
    b"10000000000000003\r\nabc\r\n0\r\n\r\n",
    b"3;a\nb\r\nabc\r\n0\r\n\r\n",
    b'3;a="\n"\r\nabc\r\n0\r\n\r\n',
    b"3;a\0\r\nabc\r\n0\r\n\r\n",
    b"0\r\nX: a\n\r\n",
    b"0\r\n\n",
    b"0\n\r\n",
    b"0\r\nX : a\r\n\r\n",
]
ODD_LINES = [
    b"POST /runs/other/cancel HTTP/1.1\nHost: localhost\n\n",
    b"POST /runs/other/cancel\r\n\r\n",
    b"POST /runs/other/cancel HTTP/0.9\r\nHost: localhost\r\n\r\n",
    b"POST /runs/other/cancel HTTP/2.0\r\nHost: localhost\r\n\r\n",
    b"POST /runs/other/cancel HTTP/1.1 \r\nHost: localhost\r\n\r\n",
    b"POST /runs/other/cancel HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST /runs/other/cancel HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET //\x80 HTTP/1.1\r\nHost: localhost\r\n\r\n",
]
DOUBTFUL = [
    *(b"POST /runs/other/cancel HTTP/1.1\r\n" + HOST + rest for rest in IN_THE_HEAD),
    *(b"POST /runs/other/inbox HTTP/1.1\r\n" + HOST + CHUNKS + rest for rest in IN_THE_BODY),
    *ODD_LINES,
]


@pytest.fixture
async def shared_rig() -> object:
    async with rig() as r:
        await r.ask("POST", "/runs", {"actor": "a", "id": "victim"})
        await r.ask("POST", "/runs", {"actor": "a", "id": "other"})
        yield r


async def test_a_request_whose_end_is_in_doubt_is_refused_and_nothing_behind_it_is_read(shared_rig: Rig) -> None:
    r = shared_rig
    for raw in DOUBTFUL:
        for pieces in ((raw + CANARY,), (raw, CANARY)):
            assert statuses(await exchange(r, *pieces)) == [400], raw
    assert await victim_is_untouched(r)
    assert (await r.ask("GET", "/runs/other")).json["state"] == "queued", "a request in doubt was carried out"


async def test_requests_before_one_in_doubt_keep_their_answers(shared_rig: Rig) -> None:
    """In order, and none is answered in another's place."""
    r = shared_rig
    good = b"POST /runs HTTP/1.1\r\nContent-Type: application/json\r\n" + HOST + sized(START)
    for raw in DOUBTFUL:
        for count in (1, 3):
            assert statuses(await exchange(r, good * count + raw + CANARY)) == [201] * count + [400], raw
    assert await victim_is_untouched(r)


async def test_nothing_is_read_behind_a_request_that_closes(shared_rig: Rig) -> None:
    """RFC 9112, section 9.6."""
    r = shared_rig
    closing = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    old = b"GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n"
    for raw in (closing, old):
        for pieces in ((raw + CANARY,), (raw + CANARY * 50,), (raw[:-1], raw[-1:] + CANARY)):
            assert statuses(await exchange(r, *pieces)) == [200]
    assert await victim_is_untouched(r)


async def test_an_answer_that_comes_before_the_awaited_body_closes(shared_rig: Rig) -> None:
    """Without a 100 the client may, or may not, send the body that it announced (RFC 9110, section 10.1.1)."""
    r = shared_rig
    raw = b"POST /nope HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
    answer = await exchange(r, raw, CANARY)
    assert statuses(answer) == [404]
    assert b"\r\nconnection: close\r\n" in answer
    assert await victim_is_untouched(r)


async def test_http_1_0_expects_nothing() -> None:
    """RFC 9110, section 10.1.1: such a client would take the 100 for its answer."""
    async with rig() as r:
        head = b"POST /runs HTTP/1.0\r\nContent-Type: application/json\r\nExpect: 100-continue\r\n" + HOST
        assert statuses(await exchange(r, head + sized(START))) == [201]


async def test_empty_lines_before_a_request_are_skipped() -> None:
    """RFC 9112, section 2.2."""
    async with rig() as r:
        last = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        assert statuses(await exchange(r, b"\r\n" + last)) == [200]


async def test_the_answer_is_read_by_a_client_that_still_sends() -> None:
    """Closing on what is unread would reset the connection (RFC 9112, section 9.6)."""
    async with rig(keys=["k"]) as r, connection(r.address) as (reader, writer):
        writer.write(b"POST /runs HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 1000000\r\n\r\n")
        for _ in range(9):
            writer.write(b"x" * 100_000)
            await r.ask("GET", "/healthz")
        reply = await asyncio.wait_for(read_head(reader), PATIENCE)
        body = await asyncio.wait_for(reader.read(), PATIENCE)
    assert (reply.status, len(body)) == (401, int(reply.header("content-length") or 0))


# --- pure ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "method", "headers"),
    [
        ("1.0", b"POST", [(b"transfer-encoding", b"chunked")]),
        ("1.1", b"POST", [(b"transfer-encoding", b"gzip, chunked")]),
        ("1.1", b"POST", [(b"transfer-encoding", b"chunked"), (b"transfer-encoding", b"chunked")]),
        ("1.1", b"POST", [(b"transfer-encoding", b"chunked"), (b"content-length", b"1")]),
        ("1.1", b"POST", [(b"content-length", b"1"), (b"content-length", b"1")]),
        ("1.1", b"POST", [(b"content-length", b"1,1")]),
        ("1.1", b"CONNECT", []),
        ("0.9", b"GET", []),
        ("2.0", b"GET", []),
    ],
)
def test_framing_in_doubt(version: str, method: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(RemoteProtocolError):
        check_framing(version, method, [(b"host", b"x"), *headers])


def test_framing_that_is_plain() -> None:
    for headers in ([], [(b"content-length", b"010")], [(b"transfer-encoding", b"CHUNKED")]):
        for version in ("1.0", "1.1"):
            if version == "1.1" or not headers or headers[0][0] == b"content-length":
                check_framing(version, b"POST", headers)


def test_a_head_without_upgrade() -> None:
    headers = [(b"upgrade", b"x"), (b"connection", b"upgrade"), (b"content-length", b"3"), (b"upgrade", b"y")]
    head = without_upgrade(b"POST", b"/a?b", "1.1", headers)
    assert head == b"POST /a?b HTTP/1.1\r\nconnection: upgrade\r\ncontent-length: 3\r\n\r\n"


def test_the_cases_differ() -> None:
    assert all(one != other for one, other in pairwise(sorted(DOUBTFUL)))


def test_the_chunked_coding() -> None:
    coding = ChunkedCoding()
    data = b"x" * 26
    coding.code(data)
    assert coding.data is data
    assert coding.chunk == b"1a\r\n" + data + b"\r\n"

"""Connections over real sockets: reuse, breaking off, closing all at once, and what must never show."""

from __future__ import annotations

import asyncio
import logging
import socket

import pytest

from loom.model import limits
from loom.model.errors import HandleClosed, LimitExceeded, Unavailable, UsageError
from loom.remote.connections import IDLE_CONNECTIONS, Connections, Lifetime
from loom.tasks import spawn
from loom.wire.headers import AHEAD, retry_after

from .scripted import Answer, chunked, scripted, sized

pytestmark = pytest.mark.anyio

KEY = "lk-very-secret-0123456789"


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


async def ask(connections: Connections, path: str = "/x") -> bytes:
    exchange = await connections.request("GET", path, timeout=5)
    try:
        return await exchange.body()
    finally:
        await exchange.aclose()


# --- what is asked ---------------------------------------------------------------------------------------------------


async def test_a_request_says_who_it_is() -> None:
    async with scripted() as server:
        server.play(sized("200 OK", b"hello"))
        connections = Connections(server.url + "/base/", api_key=KEY)
        exchange = await connections.request("POST", "/runs/a%2Fb/x", query={"after": "1-2"}, body=b"{}")
        assert await exchange.body() == b"hello"
        await exchange.aclose()
        await connections.aclose()
    (asked,) = server.asked
    assert (asked.method, asked.target, asked.body) == ("POST", "/base/runs/a%2Fb/x?after=1-2", b"{}")
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    assert asked.headers["content-type"] == "application/json"
    assert asked.headers["accept"] == "application/json"
    assert asked.headers["accept-encoding"] == "identity"


async def test_blanks_around_a_header_of_an_answer_are_no_part_of_it() -> None:
    """RFC 9110, section 5.5."""
    async with scripted() as server:
        blank = "X: \t a b \t", "Retry-After: 2 \t", f"{AHEAD}:\t5 "
        server.play(sized("200 OK", b"hello", *blank, kind="\tapplication/json  "))
        connections = Connections(server.url)
        exchange = await connections.request("GET", "/x")
        assert await exchange.body() == b"hello"
        headers = exchange.headers
        await exchange.aclose()
        await connections.aclose()
    assert [headers[name] for name in ("content-type", "x", AHEAD)] == ["application/json", "a b", "5"]
    assert retry_after(headers) == 2.0


async def test_without_a_key_none_is_sent() -> None:
    async with scripted() as server:
        server.play(sized("200 OK"))
        connections = Connections(server.url)
        await ask(connections)
        await connections.aclose()
    assert "authorization" not in server.asked[0].headers


async def test_the_key_shows_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    connections = Connections(f"http://127.0.0.1:{free_port()}", api_key=KEY)
    with pytest.raises(Unavailable) as caught:
        await ask(connections)
    async with scripted() as server:
        server.play(sized("200 OK"))
        reachable = Connections(server.url, api_key=KEY)
        await ask(reachable)
        assert KEY not in f"{connections!r} {reachable!r} {caught.value!r} {caught.value.info}"
        assert KEY not in caplog.text
        assert caplog.records
        await reachable.aclose()
    await connections.aclose()


@pytest.mark.parametrize("key", ["ключ", "a\nb", "a\x00b"])
async def test_a_key_that_no_header_can_hold_is_refused_unshown(key: str) -> None:
    with pytest.raises(UsageError) as caught:
        Connections("http://h", api_key=key)
    assert key not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "", "h:8700", "ftp://h", "http://", "http:///runs", "http://h:99999", "http://h:x", "http://[::1", "redis://h",
        "http://user:pass@h", "http://h/?key=1", "http://h/#x",
    ],
)  # fmt: skip
async def test_what_is_no_url_of_a_server_is_refused_unshown(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        Connections(url)
    assert "pass" not in str(caught.value)


async def test_no_proxy_stands_before_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    async with scripted() as server, scripted() as proxy:
        server.play(sized("200 OK", b"direct"))
        proxy.play(sized("200 OK", b"proxy"))
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("http_proxy", proxy.url)
        for url in (server.url, server.url.replace("127.0.0.1", "localhost")):
            connections = Connections(url)
            assert await ask(connections) == b"direct"
            await connections.aclose()
        for connections in (Connections("http://loom.example"), Connections(server.url, trust_env=True)):
            assert await ask(connections) == b"proxy"
            await connections.aclose()


async def test_a_server_that_speaks_no_tls_is_out_of_reach() -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await reader.read()
        writer.close()

    async with await asyncio.start_server(babble, "127.0.0.1", 0) as server:
        connections = Connections(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        with pytest.raises(Unavailable, match="SSL"):
            await ask(connections)
        await connections.aclose()


# --- one at a time each ----------------------------------------------------------------------------------------------


async def test_a_connection_is_kept_for_the_next_request() -> None:
    async with scripted() as server:
        server.play(sized("200 OK", b"x"))
        connections = Connections(server.url)
        for _ in range(5):
            await ask(connections)
        assert server.made == 1
        await connections.aclose()


async def test_who_is_slow_holds_up_nobody() -> None:
    """More held at once than any pool's usual limit; and a call beside them is answered."""
    async with scripted() as server:
        server.react = lambda asked: (
            sized("200 OK", b"x") if asked.target == "/quick" else Answer(chunked(b"x", ended=False), "hold")
        )
        connections = Connections(server.url)
        held = [await connections.request("GET", "/held", timeout=5) for _ in range(300)]
        assert [await exchange.read(5) for exchange in held] == [b"x"] * 300
        assert await ask(connections, "/quick") == b"x"
        assert server.open == 301
        for exchange in held:
            await exchange.aclose()
        assert repr(connections).endswith(f"0 in use, {IDLE_CONNECTIONS} idle>")
        await connections.aclose()


async def test_a_finished_stream_leaves_its_connection_to_the_next() -> None:
    async with scripted() as server:
        server.play(Answer(chunked(b"one", b"two"), "keep"))
        connections = Connections(server.url)
        for _ in range(3):
            exchange = await connections.request("GET", "/x", timeout=5)
            assert await exchange.read(5) == b"one"
            await exchange.finish()
        assert server.made == 1
        await connections.aclose()


async def test_a_connection_is_free_once_however_often_it_is_closed() -> None:
    async with scripted() as server:
        server.play(sized("200 OK", b"x"))
        connections = Connections(server.url)
        exchange = await connections.request("GET", "/x", timeout=5)
        for _ in range(3):
            await exchange.aclose()
        assert repr(connections).endswith("0 in use, 1 idle>")
        await connections.aclose()


async def test_a_connection_that_the_server_closed_meanwhile_is_replaced() -> None:
    async with scripted() as server:
        server.play(Answer(sized("200 OK", b"x").data, "close"))
        connections = Connections(server.url)
        for _ in range(5):
            assert await ask(connections) == b"x"
        await connections.aclose()


# --- faults ----------------------------------------------------------------------------------------------------------


async def test_nobody_there() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    connections = Connections(url)
    with pytest.raises(Unavailable, match=url):
        await ask(connections)
    await connections.aclose()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"HTTP/1.1 2",
        b"HTTP/1.1 200 OK\r\nContent-Len",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345",
        chunked(b"x", ended=False),
        chunked(b"x", ended=False) + b"5\r\nab",
        chunked(b"x", ended=False) + b"zz\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\n12345",
    ],
)
async def test_an_answer_that_breaks_off(data: bytes) -> None:
    async with scripted() as server:
        server.play(data)
        connections = Connections(server.url)
        with pytest.raises(Unavailable, match=server.url):
            await ask(connections)
        await connections.aclose()


async def test_no_answer_in_time() -> None:
    async with scripted() as server:
        server.play(Answer(b"", "hold"))
        connections = Connections(server.url)
        with pytest.raises(Unavailable, match=r"no answer for 0\.05 s"):
            await connections.request("GET", "/x", timeout=0.05)
        assert repr(connections).endswith("0 in use, 1 idle>")
        await connections.aclose()


async def test_silence_in_the_middle() -> None:
    async with scripted() as server:
        server.play(Answer(chunked(b"x", ended=False), "hold"))
        connections = Connections(server.url)
        exchange = await connections.request("GET", "/x", timeout=5)
        assert await exchange.read(5) == b"x"
        with pytest.raises(Unavailable, match=r"silent for 0\.05 s"):
            await exchange.read(0.05)
        await exchange.aclose()
        await connections.aclose()


async def test_an_answer_that_drips_is_given_up_in_time() -> None:
    """One deadline over head and body: no byte buys time."""
    async with scripted() as server:
        server.play(Answer(b"HTTP/1.1 200 OK\r\nContent-Length: 999999\r\n\r\n", "drip"))
        connections = Connections(server.url)
        exchange = await connections.request("GET", "/x", timeout=0.3)
        async with asyncio.timeout(10):
            with pytest.raises(Unavailable, match="did not finish its answer in time"):
                await exchange.body()
        await exchange.aclose()
        await server.until_closed()
        await connections.aclose()


async def test_nobody_waits_for_a_stream_that_drips_behind_its_end() -> None:
    async with scripted() as server:
        server.play(Answer(b"HTTP/1.1 200 OK\r\nContent-Length: 999999\r\n\r\n", "drip"))
        connections = Connections(server.url)
        exchange = await connections.request("GET", "/x", timeout=5)
        async with asyncio.timeout(10):
            await exchange.finish()
        await server.until_closed()
        await connections.aclose()


async def test_an_endless_answer_is_not_gathered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ANSWER_BYTES", 10)
    async with scripted() as server:
        server.play(sized("200 OK", b"x" * 11))
        connections = Connections(server.url)
        with pytest.raises(LimitExceeded):
            await ask(connections)
        await connections.aclose()


# --- closing ---------------------------------------------------------------------------------------------------------


async def hanging(connections: Connections, where: str) -> None:
    """Hang at one of the places where a request can."""
    if where == "connecting":
        await connections.lifetime.run(lambda: asyncio.sleep(3600))
    exchange = await connections.request("GET", f"/{where}")
    if where == "reading":
        await exchange.read()
        await exchange.read()


@pytest.mark.parametrize("where", ["connecting", "asking", "reading"])
async def test_closing_ends_what_hangs(where: str) -> None:
    async with scripted() as server:
        server.react = lambda asked: Answer(b"" if asked.target == "/asking" else chunked(b"x", ended=False), "hold")
        connections = Connections(server.url)
        tasks = [spawn(hanging(connections, where), "test") for _ in range(3)]
        if where == "connecting":
            await asyncio.sleep(0)
        else:
            await server.until_asked(3)
        await connections.aclose()
        async with asyncio.timeout(5):
            for task in tasks:
                with pytest.raises(HandleClosed):
                    await task
                assert not task.cancelled()
        await connections.aclose()


async def test_a_stream_nobody_was_reading_tells_that_it_was_closed() -> None:
    async with scripted() as server:
        server.play(Answer(chunked(b"x", ended=False), "hold"))
        connections = Connections(server.url)
        exchange = await connections.request("GET", "/x")
        await connections.aclose()
        with pytest.raises(HandleClosed):
            await exchange.read()
        await exchange.aclose()
        await exchange.aclose()
        with pytest.raises(HandleClosed):
            await connections.request("GET", "/x")
        await server.until_closed()


async def test_closing_again_at_any_moment() -> None:
    """Also while what hangs is on its way out."""
    lifetime = Lifetime()
    task = spawn(lifetime.run(lambda: asyncio.sleep(3600)), "test")
    await asyncio.sleep(0)
    for _ in range(5):
        lifetime.close()
        await asyncio.sleep(0)
    with pytest.raises(HandleClosed):
        await task


async def test_a_lifetime_leaves_other_cancellations_alone() -> None:
    lifetime = Lifetime()
    task = spawn(lifetime.run(lambda: asyncio.sleep(3600)), "test")
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(TimeoutError):
        await lifetime.run(lambda: asyncio.sleep(3600), 0.0)
    lifetime.close()
    lifetime.close()

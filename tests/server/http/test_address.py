"""Where a server listens, and where it may not."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from loom.model import limits
from loom.model.errors import UsageError
from loom.server.http.address import UNSENT_BYTES, Address
from loom.server.http.protocol import BoundedProtocol
from loom.server.serve import serving
from tests.server.harness import ask, gateway, rig

pytestmark = pytest.mark.anyio


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
                (getattr(socket, "TCP_NOTSENT_LOWAT", None), UNSENT_BYTES),
            ):
                assert option is None or sock.getsockopt(socket.IPPROTO_TCP, option) == value

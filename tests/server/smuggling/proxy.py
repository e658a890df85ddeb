"""A proxy that passes bytes on as they come, and records them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

__all__ = ["RecordingProxy", "recording"]


class RecordingProxy:
    """Each client's connection has one of its own to the server; `records` holds what was passed to it, by the client's
    port."""

    def __init__(self, port: int) -> None:
        self.server_port = port
        self.port = 0
        self.records: dict[int, bytearray] = {}


@asynccontextmanager
async def recording(port: int) -> AsyncIterator[RecordingProxy]:
    """In front of the server at this port of 127.0.0.1."""
    proxy = RecordingProxy(port)
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(lambda: _Front(proxy, loop), "127.0.0.1", 0)
    proxy.port = listener.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        listener.close()
        await listener.wait_closed()


class _Half(asyncio.Protocol):
    """One of the two connections; what comes goes to the other."""

    other: _Half | None = None
    transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def pass_on(self, data: bytes) -> None:
        assert self.other is not None
        assert self.other.transport is not None
        self.other.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()


class _Front(_Half):
    def __init__(self, proxy: RecordingProxy, loop: asyncio.AbstractEventLoop) -> None:
        self._proxy = proxy
        self._loop = loop
        self._early: list[bytes] = []
        self._connecting: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._record = self._proxy.records[transport.get_extra_info("peername")[1]] = bytearray()
        self._connecting = self._loop.create_task(self._connect())

    async def _connect(self) -> None:
        back = _Back()
        back.other = self
        await self._loop.create_connection(lambda: back, "127.0.0.1", self._proxy.server_port)
        self.other = back
        assert self.transport is not None
        if self.transport.is_closing():
            self.connection_lost(None)
        for data in self._early:
            self.data_received(data)

    def data_received(self, data: bytes) -> None:
        if self.other is None:
            self._early.append(data)
            return
        self._record += data
        self.pass_on(data)


class _Back(_Half):
    def data_received(self, data: bytes) -> None:
        self.pass_on(data)

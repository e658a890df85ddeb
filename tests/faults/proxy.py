"""A proxy with faults: latency, cuts, single bytes, lost replies, black holes. It counts what it did."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from loom.engine.tasks import TaskSet

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER of no time: closing resets (RFC 9293, section 3.10.7.4)


class Proxy:
    """Passes bytes between its clients and one server. Faults are attributes, minded by connections made from then on;
    `swallow` is for those that are there."""

    def __init__(self, host: str, port: int) -> None:
        self._server = (host, port)
        self._tasks = TaskSet()
        self._links: set[_Link] = set()
        self._changed = asyncio.Condition()
        self.url = ""
        self.latency = 0.0
        """Seconds that each piece takes, each way."""
        self.piece: int | None = None
        """What the server says is passed on in pieces of at most so many bytes."""
        self.cut_after: Callable[[], int | None] = lambda: None
        """Asked for each connection: after so many bytes of the server's it is cut."""
        self.reset = False
        """Cut by a reset; else as if the server had closed."""
        self.lose_replies = 0
        """So many requests reach the server, but their replies are lost and the connection with them."""
        self.refuse = False
        """New connections are closed at once."""
        self.made = 0
        """Connections that were made."""
        self.hits = 0
        """Faults that hit: a test without one has proved nothing."""

    def swallow(self) -> None:
        """From now on nothing passes over the connections that are there, nor are they closed: half-open."""
        for link in self._links:
            link.swallowing = True
            self.hits += 1

    def cut(self) -> None:
        """Cut the connections that are there."""
        for link in list(self._links):
            link.cut(self.reset)
            self.hits += 1

    async def until_made(self, times: int) -> None:
        """Until so many connections have been made."""
        async with asyncio.timeout(20), self._changed:
            await self._changed.wait_for(lambda: self.made >= times)

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with self._changed:
            self.made += 1
            self._changed.notify_all()
        if self.refuse:
            self.hits += 1
            writer.close()
            return
        try:
            upstream = await asyncio.open_connection(*self._server)
        except OSError:
            writer.close()
            return
        await self._pass(_Link(self, (reader, writer), upstream))

    async def _pass(self, link: _Link) -> None:
        self._links.add(link)
        try:
            await link.run()
        finally:
            self._links.discard(link)


class _Link:
    """One connection and the one it stands for."""

    def __init__(
        self,
        proxy: Proxy,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self._left = proxy.cut_after()
        self._lose = proxy.lose_replies > 0
        self.swallowing = False

    async def run(self) -> None:
        try:
            async with TaskSet() as tasks:
                up = tasks.spawn(self._up(), "proxy-up")
                down = tasks.spawn(self._down(), "proxy-down")
                await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for _, writer in (self._client, self._server):
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()

    async def _up(self) -> None:
        with contextlib.suppress(OSError):
            while data := await self._client[0].read(65536):
                await asyncio.sleep(self._proxy.latency)
                if not self.swallowing:
                    self._server[1].write(data)
                    await self._server[1].drain()

    async def _down(self) -> None:
        with contextlib.suppress(OSError):
            if self._left == 0:
                self._hit()
                return
            while data := await self._server[0].read(self._proxy.piece or 65536):
                await asyncio.sleep(self._proxy.latency)
                if self._lose:
                    self._proxy.lose_replies -= 1
                    self._hit()
                    return
                if not self.swallowing and not await self._say(data):
                    return
            if self.swallowing:
                await asyncio.Event().wait()

    async def _say(self, data: bytes) -> bool:
        """Whether to go on."""
        if self._left is not None:
            data = data[: self._left]
            self._left -= len(data)
        self._client[1].write(data)
        await self._client[1].drain()
        if self._left == 0:
            self._hit()
            return False
        return True

    def _hit(self) -> None:
        self._proxy.hits += 1
        if self._proxy.reset:
            self.cut(True)

    def cut(self, reset: bool) -> None:
        writer = self._client[1]
        if reset:
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()
        else:
            writer.close()


@asynccontextmanager
async def proxy_before(url: str) -> AsyncIterator[Proxy]:
    """A proxy before the server at `url`, on a port of its own."""
    host, _, port = url.removeprefix("http://").rpartition(":")
    proxy = Proxy(host, int(port))
    async with TaskSet() as tasks:

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            tasks.spawn(proxy.accept(reader, writer), "proxy")

        async with await asyncio.start_server(accept, host, 0) as server:
            proxy.url = f"http://{host}:{server.sockets[0].getsockname()[1]}"
            yield proxy

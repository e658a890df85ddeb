"""A proxy with faults: latency, cuts, single bytes, lost replies, stalls, black holes. It counts what it did."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from loom.tasks import TaskSet
from tests.mortal import free_port

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER of no time: closing resets (RFC 9293, section 3.10.7.4)


class Proxy:
    """Passes bytes between its clients and one server. Faults are attributes, minded by connections made from then on;
    `swallow`, `cut`, `stall` and `lose_reply_to` are for those that are there as well. It knows no protocol."""

    def __init__(self, host: str, port: int) -> None:
        self._server = (host, port)
        self._tasks = TaskSet()
        self._links: set[_Link] = set()
        self._changed = asyncio.Condition()
        self._stalled: set[str | None] = set()
        self._go = asyncio.Event()
        self._lost_for: bytes | None = None
        self.port = 0
        self.url = ""
        self.latency = 0.0
        """Seconds that each piece takes, each way."""
        self.piece: int | None = None
        """What the server says is passed on in pieces of at most so many bytes."""
        self.cut_after: Callable[[], int | None] = lambda: None
        """Asked for each connection: after so many bytes of the server's it is cut."""
        self.piece_up: int | None = None
        self.cut_up_after: Callable[[], int | None] = lambda: None
        """The same for what the client says."""
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

    def lose_reply_to(self, words: bytes) -> None:
        """The next piece with these words, on whatever connection, reaches the server, but whatever the server says
        after that is lost, and the connection with it."""
        self._lost_for = words

    def stall(self, host: str | None = None) -> None:
        """Nothing passes until `go_on`, and nothing is lost: as while a network is parted. `host`: only what comes from
        there is held, and what goes there."""
        self._stalled.add(host)
        self._go.clear()
        self.hits += 1

    def go_on(self) -> None:
        """What was held is passed on."""
        self._stalled.clear()
        self._go.set()

    async def pass_for(self, host: str) -> None:
        """Until nothing is held for this host."""
        while not self._stalled.isdisjoint({None, host}):
            await self._go.wait()

    def loses(self, data: bytes) -> bool:
        """Whether the reply to this piece is the one to be lost."""
        if self._lost_for is None or self._lost_for not in data:
            return False
        self._lost_for = None
        self.hits += 1
        return True

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
        host = writer.get_extra_info("peername")[0]
        await self.pass_for(host)
        try:
            upstream = await asyncio.open_connection(*self._server)
        except OSError:
            writer.close()
            return
        await self._pass(_Link(self, host, (reader, writer), upstream))

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
        host: str,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self._proxy = proxy
        self._host = host
        self._client = client
        self._server = server
        self._left = proxy.cut_after()
        self._left_up = proxy.cut_up_after()
        self._deaf = False
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
            while data := await self._client[0].read(self._proxy.piece_up or 65536):
                await self._held()
                self._deaf = self._deaf or self._proxy.loses(data)
                if not self.swallowing and not await self._ask(data):
                    return

    async def _ask(self, data: bytes) -> bool:
        """Whether to go on."""
        if self._left_up is not None:
            data = data[: self._left_up]
            self._left_up -= len(data)
        self._server[1].write(data)
        await self._server[1].drain()
        if self._left_up == 0:
            self._hit()
            return False
        return True

    async def _held(self) -> None:
        await asyncio.sleep(self._proxy.latency)
        await self._proxy.pass_for(self._host)

    async def _down(self) -> None:
        with contextlib.suppress(OSError):
            if self._left == 0:
                self._hit()
                return
            while data := await self._server[0].read(self._proxy.piece or 65536):
                await self._held()
                if self._deaf:
                    return
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
    """A proxy before the server at `url`, on a port of its own: its own `url` is the same but for that."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    proxy = Proxy(parts.hostname, parts.port)
    async with TaskSet() as tasks:

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            tasks.spawn(proxy.accept(reader, writer), "proxy")

        async with await asyncio.start_server(accept, parts.hostname, free_port()) as server:
            proxy.port = server.sockets[0].getsockname()[1]
            proxy.url = parts._replace(netloc=parts.netloc.replace(f":{parts.port}", f":{proxy.port}")).geturl()
            yield proxy

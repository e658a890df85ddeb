"""A server that answers as it is told, byte for byte, and remembers what it was asked."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from loom.model.chunk import Chunk
from loom.wire.json import make_batch
from loom.wire.sse import frames

EPOCH = 1_0000_0007

STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
TO_THE_CLOSE = STREAM + b"Connection: close\r\n\r\n"
"""The head of a stream that lasts until the connection is closed: an end and a cut look the same."""


class Asked(NamedTuple):
    """One request."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


class Answer(NamedTuple):
    """Bytes; then the connection is closed, kept for another request, held in silence ("hold"), or given one byte after
    the other ("drip"), until the client goes."""

    data: bytes
    then: str = "close"


def sized(status: str, body: bytes = b"", *headers: str, kind: str = "application/json") -> Answer:
    """A whole answer, behind which the connection can be used again."""
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(body)}", *headers]
    return Answer("\r\n".join(lines).encode() + b"\r\n\r\n" + body, "keep")


def chunked(*pieces: bytes, ended: bool = True) -> bytes:
    """The head and pieces of a stream in the chunked transfer coding."""
    body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return STREAM + b"Transfer-Encoding: chunked\r\n\r\n" + body + (b"0\r\n\r\n" if ended else b"")


def said(first: int, last: int, *, end: bool = False, epoch: int = EPOCH) -> bytes:
    """Events of the run whose first chunk is `start`, whose others are numbers."""
    chunks: list[Chunk[Any]] = [
        Chunk("start", {"attempt": 1}) if seq == 1 else Chunk("data", seq) for seq in range(first, last + 1)
    ]
    if end:
        chunks[-1] = Chunk("complete", None)
    return frames(make_batch(epoch, first, chunks))


class Scripted:
    """`play` gives it answers, one a request; the last one stays. Or `react` decides by what is asked."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.made = 0
        """Connections that were made."""
        self.url = ""
        self.react: Callable[[Asked], Answer] = self._next
        self._answers: list[Answer] = []
        self._arrived = asyncio.Condition()
        self._writers: set[asyncio.StreamWriter] = set()

    def play(self, *answers: Answer | bytes) -> None:
        self._answers = [answer if isinstance(answer, Answer) else Answer(answer) for answer in answers]

    def _next(self, asked: Asked) -> Answer:
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]

    async def until_asked(self, times: int) -> None:
        async with asyncio.timeout(10), self._arrived:
            await self._arrived.wait_for(lambda: len(self.asked) >= times)

    @property
    def open(self) -> int:
        """Connections that are open."""
        return len(self._writers)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        self.made += 1
        try:
            while await self._answer(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            self._writers.discard(writer)
            async with self._arrived:
                self._arrived.notify_all()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        asked = await _read_request(reader)
        async with self._arrived:
            self.asked.append(asked)
            self._arrived.notify_all()
        answer = self.react(asked)
        writer.write(answer.data)
        await writer.drain()
        if answer.then == "hold":
            await reader.read()
        while answer.then == "drip" and not reader.at_eof():
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.01)
        return answer.then == "keep"

    async def until_closed(self) -> None:
        """Until no connection is open."""
        async with asyncio.timeout(10), self._arrived:
            await self._arrived.wait_for(lambda: not self._writers)

    async def hang_up(self) -> None:
        for writer in self._writers:
            writer.close()
        await self.until_closed()


async def _read_request(reader: asyncio.StreamReader) -> Asked:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
    method, target, _ = first.split(" ")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Asked(method, target, headers, body)


@asynccontextmanager
async def scripted() -> AsyncIterator[Scripted]:
    script = Scripted()
    server = await asyncio.start_server(script.serve, "127.0.0.1", 0)
    async with server:
        script.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield script
        await script.hang_up()

"""A server that speaks just enough HTTP/1.1 to play recorded answers, byte by byte if need be. Of asyncio alone."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self, cast

PATIENCE = 10.0
"""Seconds: whatever a test waits for comes within this time, or the test fails."""


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: Mapping[str, str]
    body: Any
    at: float


@dataclass(frozen=True)
class Play:
    """What one request is answered with, as it stands on the line.

    `cut`: the connection ends after so many bytes (None: it stays open, or ends if the head says so); `reset`: with a
    reset instead of an end. `step`: so many bytes at a time. `stay`: the server waits for the client to leave.
    """

    line: bytes
    cut: int | None = None
    reset: bool = False
    step: int | None = None
    stay: bool = False

    @property
    def closes(self) -> bool:
        return self.cut is not None or b"connection: close" in self.line


def head(status: int = 200, content_type: str = "text/event-stream", **fields: str) -> bytes:
    lines = [f"HTTP/1.1 {status} Whatever", f"content-type: {content_type}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def sized(body: bytes, status: int = 200, content_type: str = "application/json", **fields: str) -> bytes:
    """An answer of known length."""
    return head(status, content_type, content_length=str(len(body)), **fields) + body


def until_close(body: bytes, content_type: str = "text/event-stream") -> bytes:
    """An answer that ends with its connection: a cut looks like the end."""
    return head(200, content_type, connection="close") + body


def chunked(body: bytes, content_type: str = "text/event-stream", size: int = 100) -> bytes:
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    line = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in [*pieces, b""])
    return head(200, content_type, transfer_encoding="chunked") + line


def events(*data: object) -> bytes:
    return b"".join(b"data: %b\n\n" % (d if isinstance(d, bytes) else json.dumps(d).encode()) for d in data)


def said(text: str, finish: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]}


@dataclass
class Provider:
    """Plays one `Play` for each request, in order; the last one for all that follow.

    Or what `answers` says to its body.
    """

    plays: list[Play] = field(default_factory=list)
    answers: Callable[[Any], bytes] | None = None
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    came: asyncio.Event = field(default_factory=asyncio.Event)
    """A request is here, and what there is to say was said."""
    left: asyncio.Event = field(default_factory=asyncio.Event)
    """The client closed its connection while we stayed."""
    url: str = ""

    def play(self, *plays: Play | bytes) -> None:
        self.plays = [play if isinstance(play, Play) else Play(play) for play in plays]

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._open: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        for writer in self._open.values():
            writer.close()
        await asyncio.gather(*self._open)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = cast("asyncio.Task[None]", asyncio.current_task())
        self._open[task] = writer
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                while await self._exchange(reader, writer):
                    pass
        finally:
            del self._open[task]
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        method, path, _ = first.split(" ")
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        self.requests.append(Request(method, path, headers, json.loads(body or b"null"), time.monotonic()))
        if self.answers is not None:
            play = Play(self.answers(self.requests[-1].body))
        else:
            play = self.plays.pop(0) if len(self.plays) > 1 else self.plays[0]
        try:
            await self._send(play, writer)
            self.came.set()
            if play.stay:
                await reader.read()
        finally:
            if play.stay:
                self.left.set()
        if play.reset:
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        return not play.closes

    async def _send(self, play: Play, writer: asyncio.StreamWriter) -> None:
        line = play.line[: play.cut]
        step = play.step or len(line) or 1
        for at in range(0, len(line), step):
            writer.write(line[at : at + step])
            await writer.drain()
            await asyncio.sleep(0)  # the client shares this loop: let it read what is there

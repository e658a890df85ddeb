"""A `ctx` without a run: for plain calls of a producer in a test."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

from loom.engine.declare.context import NO_CLIENT, Context
from loom.engine.follow.blocking import SyncClient
from loom.engine.follow.client import Client
from loom.engine.run.writer import encode_chunk
from loom.model.ai import AI
from loom.model.chunk import Chunk, Message, Progress
from loom.model.errors import LocalProtocolError, UsageError
from loom.model.grammar import RESERVED
from loom.model.numbers import seconds as seconds_of
from loom.wire.codec import convert
from loom.wire.json import decode_chunk

__all__ = ["FakeContext", "context"]


class FakeContext(Context):
    """A `Context` that keeps what is emitted (`emitted`) and gives the messages it was made with."""

    def __init__(
        self,
        *,
        ai: AI | None,
        previous: Sequence[Chunk[Any]],
        messages: Iterable[Message[Any]],
        resources: Any,
        run_id: str,
        actor: str,
        attempt: int,
        key: str | None,
        client: Client | SyncClient | None,
    ) -> None:
        super().__init__(
            run_id=run_id,
            actor=actor,
            attempt=attempt,
            key=key,
            previous=previous,
            resources=resources,
            ai=None if ai is None else lambda: ai,
            emit=self._keep,
            receive=self._take,
            convert=convert,
            client=None if client is None else _Lent(client),
        )
        self.emitted: list[Chunk[Any]] = []
        """The chunks that were said with `emit`, decoded as a reader would get them."""
        self.slept: list[float] = []
        """The seconds that `sleep` and `sleep_sync` were asked for; neither waits."""
        self._messages = deque(messages)

    def cancel(self) -> None:
        """Make `cancelled` true, as a cancel of the run does for sync producers."""
        self._cancel()

    def emit_sync(self, item: Any) -> None:
        self._record(item)

    def receive_sync(self, type: str | None = None, *, timeout: float | None = None) -> Message[Any]:
        return self._next(type)

    async def sleep(self, seconds: float | timedelta) -> None:
        self.sleep_sync(seconds)
        await asyncio.sleep(0)

    def sleep_sync(self, seconds: float | timedelta) -> None:
        self.slept.append(seconds_of(seconds) or 0.0)

    async def _keep(self, item: Any) -> None:
        self._record(item)

    async def _take(self, type: str | None, timeout: float | None) -> Message[Any]:
        return self._next(type)

    def _record(self, item: Any) -> None:
        chunk = item if isinstance(item, Chunk) else Chunk("data", item)
        if isinstance(item, Progress):
            chunk = Chunk("progress", progress=item)
        if chunk.type in RESERVED:
            raise LocalProtocolError(f"a producer does not say {chunk.type!r} itself")
        self.emitted.append(decode_chunk(encode_chunk(chunk)))

    def _next(self, type: str | None) -> Message[Any]:
        for index, message in enumerate(self._messages):
            if type is None or message.type == type:
                del self._messages[index]
                return message
        raise TimeoutError(f"the test gave no {type or 'further'} message")


class _Lent:
    """The client that the test gave."""

    def __init__(self, client: Client | SyncClient) -> None:
        self._client = client

    @property
    def client(self) -> Client:
        if isinstance(self._client, SyncClient):
            raise UsageError(NO_CLIENT)
        return self._client

    def blocking(self, *caller: Any) -> SyncClient:
        if isinstance(self._client, Client):
            raise UsageError("ctx.client_sync is for threads: loom.testing.context(client=...) takes a SyncClient, too")
        return self._client


def context(
    *,
    ai: AI | None = None,
    previous: Iterable[Any] = (),
    messages: Iterable[Message[Any]] = (),
    resources: Any = None,
    run_id: str = "test-run",
    actor: str = "test-actor",
    attempt: int | None = None,
    key: str | None = None,
    client: Client | SyncClient | None = None,
) -> FakeContext:
    """A ctx for ``async for x in chat("hi", ctx)``.

    `previous`: what earlier attempts said, as chunks or plain values (then data chunks). `messages`: what the run will
    be told; asking for more raises `TimeoutError` at once. `client`: what starts runs, as that of
    ``loom.testing.client(app)``, or for `client_sync` that of `loom.connect_sync`; they have no parent here. `attempt`
    defaults to 2 when there is a `previous`, else 1.
    """
    chunks = [_chunk(item, seq) for seq, item in enumerate(previous, 2)]
    return FakeContext(
        ai=ai,
        previous=chunks,
        messages=messages,
        resources=resources,
        run_id=run_id,
        actor=actor,
        attempt=attempt or (2 if chunks else 1),
        key=key,
        client=client,
    )


def _chunk(item: Any, seq: int) -> Chunk[Any]:
    if isinstance(item, Chunk):
        return item
    return Chunk("data", item, seq=seq)

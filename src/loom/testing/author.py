"""Writing and reading a log by hand: what tests of stores need, without the engine."""

from __future__ import annotations

from typing import Any, Protocol, Self

from loom.model import limits
from loom.model.chunk import Batch, Chunk
from loom.model.cursor import Cursor
from loom.model.ports import Fence, LogSpec, LogStore, RunStore, closing
from loom.model.run import Meta
from loom.wire.json import decode_chunk, make_batch

__all__ = ["Author", "Runs", "read_all"]


class Runs(Protocol):
    """A store, as far as runs are written."""

    @property
    def logs(self) -> LogStore: ...

    @property
    def runs(self) -> RunStore: ...


class Author:
    """Writes a log of one writer as one epoch, a batch a call. `tail` is what it knows to be stored."""

    def __init__(self, logs: LogStore, log: str, fence: Fence) -> None:
        self.logs = logs
        self.log = log
        self.epoch = fence.epoch
        self.tail = fence.tail

    @classmethod
    async def take(cls, logs: LogStore, log: str, token: str = "token") -> Self:
        """The author of a log that exists, by a new fence."""
        return cls(logs, log, await logs.fence(log, token))

    @classmethod
    async def open(cls, logs: LogStore, log: str = "log", token: str = "token", spec: LogSpec | None = None) -> Self:
        """The author of a log without a run, created here."""
        await logs.create(log, spec or LogSpec())
        return await cls.take(logs, log, token)

    @classmethod
    async def start(cls, store: Runs, run: str = "run", token: str = "token", **meta: Any) -> Self:
        """The author of a run that is created here, having said `start`."""
        await store.runs.create(Meta(run=run, actor="actor", **meta))
        author = await cls.take(store.logs, run, token)
        await author.say("start")
        return author

    def batch(self, *said: str | Chunk[Any]) -> Batch:
        """The next batch, without sending it. A bare word is a chunk of that type; its data names its position."""
        chunks = [
            Chunk(chunk, f"{self.epoch}-{self.tail + place}") if isinstance(chunk, str) else chunk
            for place, chunk in enumerate(said, 1)
        ]
        return make_batch(self.epoch, self.tail + 1, chunks)

    async def send(self, batch: Batch, *, end: bool = False) -> Cursor:
        """Append `batch`; with `end` its last chunk ends the log."""
        commit = closing(decode_chunk(batch.lines()[-1])) if end else None
        cursor = await self.logs.append(self.log, batch, commit)
        self.tail = batch.last
        return cursor

    async def say(self, *said: str | Chunk[Any]) -> Cursor:
        """Append the next batch; a last chunk of type `complete` or `error` ends the log."""
        last = said[-1] if isinstance(said[-1], str) else said[-1].type
        return await self.send(self.batch(*said), end=last in ("complete", "error"))


async def read_all(
    logs: LogStore,
    log: str,
    after: Cursor | None = None,
    *,
    limit: int = limits.PAGE_CHUNKS,
    limit_bytes: int = limits.PAGE_BYTES,
) -> list[tuple[Cursor, bytes]]:
    """Each chunk's cursor and JSON behind `after`, up to the tail. Every page is checked to continue the one before."""
    lines: list[tuple[Cursor, bytes]] = []
    seq = after.seq if after else 0
    while True:
        page = await logs.read(log, after, limit=limit, limit_bytes=limit_bytes)
        assert len(page) <= limit
        assert len(page) <= 1 or sum(len(batch.payload) for batch in page.batches) <= limit_bytes
        assert page.batches or page.caught_up, "an empty page that is not caught up leads nowhere"
        for cursor, line in page.lines():
            seq += 1
            assert cursor.seq == seq, f"chunk {cursor} where {seq} was due"
            lines.append((cursor, line))
        assert page.cursor == (lines[-1][0] if lines else after)
        after = page.cursor
        if page.caught_up:
            return lines

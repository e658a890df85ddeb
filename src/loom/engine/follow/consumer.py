"""The consumer: a run's chunks by its id, for who knows of it before its publisher has begun."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import timedelta
from typing import Any

from loom.affinity import LoopBound
from loom.backoff import Backoff
from loom.model.chunk import Chunk
from loom.model.cursor import Cursor
from loom.model.errors import LogNotFound
from loom.model.names import check_id
from loom.model.numbers import seconds
from loom.model.ports import Transport

from .run import Run

__all__ = ["Consumer"]


class Consumer:
    """``client.consumer``: reads any run, a publisher's or a producer's. `read` is ``client.run(id).chunks()``, but for
    `wait`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def read(
        self,
        id: str,
        after: Cursor | str | None = None,
        *,
        wait: float | timedelta = 0.0,
        raise_errors: bool = True,
    ) -> AsyncGenerator[Chunk[Any], None]:
        """Every chunk behind `after` to the end, as `Run.chunks`, which see. A run that is not there yet is waited for,
        up to `wait` seconds; then `LogNotFound` is raised."""
        return LoopBound(self._read(id, after, wait, raise_errors), self._transport.check_loop)

    async def _read(
        self, id: str, after: Cursor | str | None, wait: float | timedelta, raise_errors: bool
    ) -> AsyncGenerator[Chunk[Any], None]:
        run: Run[Any, Any] = Run(self._transport, check_id(id))
        await self._found(run, seconds(wait) or 0.0)
        async with aclosing(run.chunks(after, raise_errors=raise_errors)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def _found(self, run: Run[Any, Any], wait: float) -> None:
        backoff = Backoff.of_store()
        try:
            async with asyncio.timeout(wait or None):
                while True:
                    try:
                        await run.status()
                    except LogNotFound:
                        if not wait:
                            raise
                        await backoff.pause()
                    else:
                        return
        except TimeoutError:
            raise LogNotFound(f"there is no run {run.id!r}, not after {wait} s either") from None

"""How a run ends otherwise than by its producer: the error chunk, and the run that nobody drives any more."""

from __future__ import annotations

import time
from typing import Any

from loom.model.chunk import Chunk
from loom.model.errors import ErrorInfo
from loom.model.ports import Fence, LogStore
from loom.wire.failure import bounded

from .writer import Writer

__all__ = ["end_run", "error_chunk"]


def error_chunk(info: ErrorInfo) -> Chunk[Any]:
    """The last chunk of a run that ends with `info`."""
    return Chunk("error", None, None, info, None, time.time())


async def end_run(logs: LogStore, run: str, fence: Fence, info: ErrorInfo) -> None:
    """End a run as the writer that `fence` made us, no producer being touched. Of one that has ended it does nothing.

    Raises what appending raises, `Fenced` among them.
    """
    if fence.ended:
        return
    writer = Writer(logs, run, fence)
    try:
        await writer.end(error_chunk(bounded(info)))
    finally:
        await writer.aclose()

"""What Loom's own processes run on; in other people's processes both are theirs to choose."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["loop_runner"]

COLLECT_AFTER = 50_000
"""New objects that the garbage collector waits for in Loom's own processes: a few MB, should all be garbage."""


@contextmanager
def loop_runner() -> Iterator[asyncio.Runner]:
    """A runner on uvloop where that is installed. Inside the block the cyclic garbage collector looks at what is new
    only after `COLLECT_AFTER` more objects than before: what we leave behind is hardly ever in a cycle, and
    thousands of runs, each with its tasks and timers, are a long way round (measured with 5,000: half a second, every
    six seconds, in which nobody speaks)."""
    before = gc.get_threshold()
    gc.set_threshold(COLLECT_AFTER, *before[1:])
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            yield runner
    finally:
        gc.set_threshold(*before)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop

"""An actor with a pool of threads, which are idle when its process exits, and with something to do at the exit."""

from __future__ import annotations

import atexit
from concurrent.futures import ThreadPoolExecutor

import loom

pool = ThreadPoolExecutor(1)
app = loom.App()
atexit.register(print, "flushed", flush=True)


@app.actor
async def pooled() -> int:
    return pool.submit(lambda: 7).result()

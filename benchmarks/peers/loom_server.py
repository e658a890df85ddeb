"""Loom, serving on a free port of this machine, which it says: ``python loom_server.py STORE [gateway|worker]``."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from contextlib import AsyncExitStack

from loom_app import app

from loom.connect import open_store
from loom.engine.follow.transport import StoreTransport
from loom.engine.run.loop import loop_runner
from loom.engine.run.worker import Worker
from loom.server.app import create_app
from loom.server.serve import serving

CONCURRENCY = 6000
"""Runs at a time: as many as T10 holds, and some."""


async def main(url: str, role: str) -> None:
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(open_store(url))
        port = 0
        if role != "worker":
            listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
            gateway = create_app(StoreTransport(store, app.registry))
            port = (await stack.enter_async_context(serving(gateway, sock=listener))).port
        if role != "gateway":
            await stack.enter_async_context(Worker(store, app.registry, concurrency=CONCURRENCY, drain=0))
        print(port, flush=True)
        await told.wait()


if __name__ == "__main__":
    with loop_runner() as runner:
        runner.run(main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "both"))

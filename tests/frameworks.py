"""Other people's servers: uvicorn in this event loop, around an app that is not ours."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from starlette.types import ASGIApp

from loom.server.http.address import Address
from loom.tasks import spawn, wait_out

__all__ = ["served_by_uvicorn"]


@asynccontextmanager
async def served_by_uvicorn(app: ASGIApp, *, root_path: str = "") -> AsyncIterator[Address]:
    """Plain uvicorn, as anybody runs it. Whoever connects early waits in the socket's queue."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="on", root_path=root_path))
        task = spawn(server.serve([listener]), "uvicorn")
        try:
            yield Address("127.0.0.1", listener.getsockname()[1])
        finally:
            server.should_exit = True
            await wait_out(task)
        task.result()

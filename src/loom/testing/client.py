"""The whole thing in memory, for tests: a store, a worker and a client in one block."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from loom.app import App
from loom.connect import connect
from loom.engine.follow.client import Client

__all__ = ["client"]


def client(app: App, *, drain: float = 0.0) -> AbstractAsyncContextManager[Client]:
    """``async with loom.testing.client(app) as client``: runs start, stream and end for real, in memory, whichever
    queues their actors declare.

    Leaving the block ends what still runs after `drain` seconds.
    """
    return connect("memory://", app=app, worker=True, drain=drain)

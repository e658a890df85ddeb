"""For code that blocks (Django, Flask, scripts, notebooks): `connect`, its client behind one portal."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any

from loom.connect import connect
from loom.engine.follow.blocking import SyncClient, SyncConsumer, SyncOwnedRun, SyncPublisher, SyncRun
from loom.engine.follow.client import Client
from loom.portal import Portal

__all__ = ["SyncClient", "SyncConsumer", "SyncOwnedRun", "SyncPublisher", "SyncRun", "connect_sync"]


class connect_sync:
    """``with loom.connect_sync(url) as client``: `loom.connect`, for code that blocks; the same arguments.

    Ending a `for` loop early closes its iterator soon after it was collected, and before the block is left;
    ``contextlib.closing`` closes it at once.
    """

    def __init__(self, url: str, **options: Any) -> None:
        self._connection: AbstractAsyncContextManager[Client] = connect(url, **options)
        self._portal: Portal | None = None

    def __enter__(self) -> SyncClient:
        self._portal = portal = Portal()
        try:
            return SyncClient(portal, portal.call(_enter(self._connection)))
        except BaseException:
            portal.close()
            raise

    def __exit__(self, *exc: object) -> None:
        assert self._portal is not None
        try:
            self._portal.call(_leave(self._portal, self._connection))
        finally:
            self._portal.close()


async def _enter(connection: AbstractAsyncContextManager[Client]) -> Client:
    return await connection.__aenter__()


async def _leave(portal: Portal, connection: AbstractAsyncContextManager[Client]) -> None:
    await portal.wait_dropped()  # it may have a run to cancel
    await connection.__aexit__(None, None, None)

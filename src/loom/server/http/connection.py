"""The connection below an answer: whether its client is still there, and what our own server lets answers do to it."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from starlette.types import Receive, Scope

from loom.model import limits

__all__ = ["CONNECTION", "cut", "hold", "wait_gone"]

CONNECTION = "loom.connection"
"""The ASGI extension that our own server offers, which has nothing between the app and the connection. `write(data)`:
write a part of the body now, framed as the connection has it, or return False, having written nothing, while the
connection is slow or gone; `data` is not empty. `abort()`: cut the connection, whose buffer will never be taken.
`hold()`: do not evict the connection before the answer has ended. There is no `write` in HTTP/1.0."""


async def wait_gone(receive: Receive) -> None:
    """Until the client has left, or was sent all."""
    while (await receive())["type"] != "http.disconnect":
        pass


def hold(scope: Scope) -> None:
    """Protects the connection of an admitted request from eviction until it is answered."""
    if (connection := scope.get("extensions", {}).get(CONNECTION)) is not None:
        connection["hold"]()


async def cut(scope: Scope, receive: Receive) -> None:
    """Close a connection that takes nothing. Where the server below offers no way, ending the answer must do."""
    connection = scope.get("extensions", {}).get(CONNECTION)
    if connection is not None:
        connection["abort"]()
        with suppress(TimeoutError):
            async with asyncio.timeout(limits.LINGER):
                await wait_gone(receive)

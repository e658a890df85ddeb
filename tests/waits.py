"""Waits for what nothing tells of but its being so. All turn the loop and never stop it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

__all__ = ["later", "turns", "until"]


async def turns(count: int = 20) -> None:
    """Let the loop turn: what else is ready goes on."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until(reached: Callable[[], object], *, seconds: float = 5.0) -> None:
    """Turn the loop until `reached()` is true, for so many real seconds; virtual time stands still."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if reached():
            return
        await asyncio.sleep(0)
    raise TimeoutError


async def later(reached: Callable[[], object]) -> None:
    """Let virtual time pass until `reached()` is true."""
    while True:
        if reached():
            return
        await asyncio.sleep(0.1)

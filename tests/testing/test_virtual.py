"""The loop on virtual time."""

from __future__ import annotations

import asyncio
import contextlib

from loom.testing.virtual import VirtualLoop


async def waits(end: float, turns: int) -> None:
    """As whoever looks, for some turns of the loop, whether it was woken too early, and then waits for what is left."""
    loop = asyncio.get_running_loop()
    while (left := end - loop.time()) > 0:
        for _ in range(turns):
            await asyncio.sleep(0)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(left):
                await loop.create_future()


def test_no_timer_is_early() -> None:
    """By a rounding there may be the smallest of times left: it passes, too."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for tenths in range(1, 500):
            end = loop.time() + tenths / 10
            await asyncio.gather(*(waits(end + turns * 1e-12, turns) for turns in range(6)))
            assert end <= loop.time() < end + 1e-9

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(main())


def test_time_stands_still_while_something_is_ready() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        for _ in range(100):
            await asyncio.sleep(0)
        assert loop.time() == began
        await asyncio.sleep(1e6)
        assert loop.time() == began + 1e6

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(main())

"""Output is written in order, batched while a write is under way, and a reader that pauses stops nothing else."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import pytest

from loom.cli.pump import Pump

pytestmark = pytest.mark.anyio


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        try:
            os.close(end)
        except OSError:
            continue  # the test has closed it


class Source:
    """What is to be written; counts how often it was asked."""

    def __init__(self) -> None:
        self.waiting: list[bytes] = []
        self.pulls = 0

    def pull(self) -> bytes:
        self.pulls += 1
        data = b"".join(self.waiting)
        self.waiting.clear()
        return data


async def test_all_is_written_in_order_when_it_settles(pipe: tuple[int, int]) -> None:
    source = Source()
    async with Pump(pipe[1], source.pull) as pump:
        for number in range(100):
            source.waiting.append(b"%d " % number)
            pump.nudge()
        await pump.settle()
        assert os.read(pipe[0], 1000).split() == [b"%d" % number for number in range(100)]
        assert source.pulls <= 2
        await pump.settle()


async def test_a_reader_that_pauses_does_not_stop_the_loop(pipe: tuple[int, int]) -> None:
    source = Source()
    async with Pump(pipe[1], source.pull) as pump:
        source.waiting.append(b"x" * 200_000)  # more than a pipe holds
        settled = asyncio.ensure_future(pump.settle())
        for _ in range(10):
            await asyncio.sleep(0)
        assert not settled.done()
        read = 0
        while read < 200_000:
            read += len(await asyncio.to_thread(os.read, pipe[0], 65536))
        await settled


async def test_a_reader_that_left_is_told(pipe: tuple[int, int]) -> None:
    source = Source()
    async with Pump(pipe[1], source.pull) as pump:
        os.close(pipe[0])
        source.waiting.append(b"x")
        with pytest.raises(BrokenPipeError):
            await pump.settle()
        assert pump.done.done()


async def test_time_alone_pulls_where_something_moves(pipe: tuple[int, int]) -> None:
    frames = iter([b"one", b"two", b"three"])
    async with Pump(pipe[1], lambda: next(frames, b""), every=0.001):
        seen = b""
        while not seen.endswith(b"three"):
            seen += await asyncio.to_thread(os.read, pipe[0], 100)
        assert seen == b"onetwothree"

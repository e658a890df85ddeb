"""Pauses between tries: doubling, jittered, bounded."""

from __future__ import annotations

import asyncio

import pytest

from loom.engine.backoff import REPEATABLE, Backoff
from loom.model import limits
from loom.model.errors import Conflict, Fenced, LogNotFound, OutcomeUnknown, StoreFull, Unavailable
from tests.virtual import VirtualLoop

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    return "asyncio", {"loop_factory": VirtualLoop}


async def test_pauses_double_up_to_the_longest_and_stay_in_the_upper_half() -> None:
    backoff = Backoff(1.0, 5.0)
    for full in (1.0, 2.0, 4.0, 5.0, 5.0):
        assert full / 2 <= backoff.draw() <= full


async def test_after_a_success_they_begin_anew() -> None:
    backoff = Backoff(1.0, 100.0)
    for _ in range(5):
        backoff.draw()
    backoff.reset()
    assert backoff.draw() <= 1.0


async def test_pauses_differ() -> None:
    assert len({Backoff(1.0, 1.0).draw() for _ in range(20)}) > 10


async def test_a_pause_takes_its_time() -> None:
    loop = asyncio.get_running_loop()
    before = loop.time()
    await Backoff(10.0, 10.0).pause()
    assert 5.0 <= loop.time() - before <= 10.0


async def test_the_store_s_bounds_are_the_documented_ones() -> None:
    assert Backoff.of_store().draw() <= limits.STORE_RETRY[0]


@pytest.mark.parametrize("error", REPEATABLE)
async def test_a_call_is_made_again_while_the_store_is_out_of_reach(error: type[Exception]) -> None:
    left = 4

    async def call() -> str:
        nonlocal left
        left -= 1
        if left:
            raise error("out")
        return "done"

    assert await Backoff.of_store().attempt(call) == "done"
    assert left == 0


@pytest.mark.parametrize("error", [Fenced, Conflict, LogNotFound, ValueError])
async def test_every_other_error_is_the_caller_s(error: type[Exception]) -> None:
    async def call() -> None:
        raise error("no")

    with pytest.raises(error):
        await Backoff.of_store().attempt(call)


async def test_the_caller_bounds_it() -> None:
    async def call() -> None:
        raise Unavailable("out")

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(100.0):
            await Backoff.of_store().attempt(call)


def test_these_and_no_others_may_be_repeated() -> None:
    assert set(REPEATABLE) == {Unavailable, OutcomeUnknown, StoreFull}

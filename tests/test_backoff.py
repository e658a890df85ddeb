"""Pauses between tries: doubling, jittered, bounded."""

from __future__ import annotations

import asyncio
import logging

import pytest

from loom.backoff import REPEATABLE, Backoff, repeated
from loom.model import limits
from loom.model.errors import Conflict, Fenced, LogNotFound, LoomError, OutcomeUnknown, StoreFull, Unavailable
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


# --- calls that are given up -----------------------------------------------------------------------------------------


class Peer:
    """Raises these errors, one a call, then answers."""

    def __init__(self, *errors: LoomError) -> None:
        self._errors = list(errors)
        self.called: list[float] = []

    async def __call__(self) -> str:
        self.called.append(asyncio.get_running_loop().time())
        if self._errors:
            raise self._errors.pop(0)
        return "answer"


async def ask(peer: Peer, *, attempts: int = 3, within: float = 100.0) -> str:
    return await repeated(
        peer,
        lambda error: error.retryable,
        attempts=attempts,
        within=within,
        backoff=(1.0, 8.0),
        log=logging.getLogger("loom.test"),
    )


async def test_what_passes_is_asked_again_after_doubling_pauses() -> None:
    peer = Peer(Unavailable("1"), Unavailable("2"), Unavailable("3"))
    assert await ask(peer, attempts=4) == "answer"
    first, second, third, fourth = peer.called
    assert 0.5 <= second - first <= 1.0 <= third - second <= 2.0 <= fourth - third <= 4.0


async def test_attempts_are_bounded_and_the_last_error_is_told() -> None:
    peer = Peer(Unavailable("1"), Unavailable("2"), Unavailable("3"))
    with pytest.raises(Unavailable, match="3"):
        await ask(peer)
    assert len(peer.called) == 3


async def test_what_does_not_pass_is_told_at_once() -> None:
    peer = Peer(Conflict("no"))
    with pytest.raises(Conflict):
        await ask(peer)
    assert len(peer.called) == 1


async def test_no_call_is_later_than_the_deadline() -> None:
    peer = Peer(*(Unavailable(str(n)) for n in range(100)))
    with pytest.raises(Unavailable):
        await ask(peer, attempts=100, within=20.0)
    assert 2 < len(peer.called) < 10
    assert peer.called[-1] - peer.called[0] <= 20.0


async def test_a_pause_that_is_asked_for_is_kept_whole() -> None:
    peer = Peer(Unavailable("busy", details={"retry_after": 7.0}))
    assert await ask(peer) == "answer"
    assert 7.5 <= peer.called[1] - peer.called[0] <= 8.0


async def test_a_pause_beyond_the_deadline_is_told_at_once() -> None:
    peer = Peer(Unavailable("busy", details={"retry_after": 3600.0}))
    before = asyncio.get_running_loop().time()
    with pytest.raises(Unavailable):
        await ask(peer)
    assert asyncio.get_running_loop().time() == before


async def test_what_is_asked_again_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "loom.test"):
        await ask(Peer(Unavailable("busy")))
    assert caplog.messages[0].startswith("busy; asking again in 0.")

"""A refusal by the store is one line of the log, in however many loops and however often it is met."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from loom.engine.declare.registry import Registry
from loom.engine.run.trouble import TROUBLES, Trouble
from loom.engine.run.watchman import WATCH_PUBLISHED, Watchman
from loom.engine.run.worker import Worker
from loom.model import limits
from loom.model.errors import LoomError, Unauthorized, Unavailable, UsageError
from loom.stores.memory import MemoryStore
from tests.faults.store import FaultStore
from tests.virtual import Clock, VirtualLoop

pytestmark = pytest.mark.anyio

WRONG = Unauthorized("the password is wrong")
CALLS = ("claim", "sweep", "register", "renew_all")


@pytest.fixture
def anyio_backend() -> Any:
    return "asyncio", {"loop_factory": VirtualLoop}


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [f"{record.levelname} {record.getMessage()}" for record in caplog.records if record.name == "loom.worker"]


def of_worker(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Without those of its watchman."""
    return [line for line in lines(caplog) if "worker w: " in line]


REFUSED = "ERROR worker w: the store refuses it; trying again, at last every 10 s:"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (WRONG, f"{REFUSED} the password is wrong"),
        (UsageError("no\nsuch function"), f"{REFUSED} no\\nsuch function"),
        (LoomError("what is this"), f"{REFUSED} what is this"),
        (ZeroDivisionError("a fault"), "ERROR worker w: the store failed"),
        (Unavailable("no answer"), "WARNING worker w: the store is out of reach: no answer"),
    ],
)
async def test_a_worker_says_it_once_and_goes_on_when_it_is_mended(
    virtual_time: Clock, caplog: pytest.LogCaptureFixture, error: Exception, line: str
) -> None:
    store = FaultStore(MemoryStore(clock=virtual_time))
    for call in CALLS:
        store.refuse(call, error, times=10**6)
    async with Worker(store, Registry(), name="w", drain=0.0):
        await asyncio.sleep(600)
        assert of_worker(caplog) == [line]
        store._faults.clear()
        await asyncio.sleep(2 * limits.REFUSED_RETRY)
        assert of_worker(caplog) == [line, "WARNING worker w: the store answers again"]


async def test_what_is_refused_is_tried_rarely(virtual_time: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    store, tried = FaultStore(MemoryStore(clock=virtual_time)), 0

    async def claim(*args: object, **kwargs: object) -> None:
        nonlocal tried
        tried += 1
        raise WRONG

    monkeypatch.setattr(store.queue, "claim", claim)
    async with Worker(store, Registry(), name="w", drain=0.0):
        await asyncio.sleep(60)  # doubling up to the bound at first
        tried = 0
        await asyncio.sleep(600)
    others = 600 / WATCH_PUBLISHED  # of the watchman, which has its own pace
    assert 600 / limits.REFUSED_RETRY <= tried - others <= 2 * 600 / limits.REFUSED_RETRY + 5


async def test_a_watchman_says_it_once(virtual_time: Clock, caplog: pytest.LogCaptureFixture) -> None:
    store = FaultStore(MemoryStore(clock=virtual_time))
    store.refuse("claim", WRONG, times=10**6)
    task = asyncio.create_task(Watchman(store, "m").run())
    await asyncio.sleep(600)
    assert len(lines(caplog)) == 1
    store._faults.clear()
    await asyncio.sleep(10)
    assert len(lines(caplog)) == 2
    task.cancel()


async def test_another_error_is_another_line(caplog: pytest.LogCaptureFixture) -> None:
    trouble = Trouble(logging.getLogger("loom.worker"), "it")
    for error in (WRONG, UsageError("too old"), UsageError("too old"), WRONG):
        trouble.met("one", error)
        trouble.met("two", error)
    trouble.over("one")
    assert [line.rpartition(": ")[2] for line in lines(caplog)] == ["the password is wrong", "too old"]
    trouble.over("two")
    trouble.over("two")
    assert lines(caplog)[2:] == ["WARNING it: the store answers again"]


def test_errors_that_are_all_different_are_not_all_remembered() -> None:
    trouble = Trouble(logging.getLogger("loom.worker"), "worker w")
    for number in range(10 * TROUBLES):
        trouble.met("loop", Unavailable(f"no answer to call {number}"))
    assert len(trouble._met) == TROUBLES

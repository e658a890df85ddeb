"""The transport of this process."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import pytest

import loom
from loom.engine.transport import StoreTransport
from loom.model.run import Meta
from loom.stores.memory import MemoryStore

pytestmark = pytest.mark.anyio

app = loom.App()


@app.actor("slow", queue="slow", timeout=timedelta(minutes=1), idle_timeout=5, ahead=3)
async def slow(n: int) -> int:
    return n


def meta(**given: Any) -> Meta:
    return Meta(run="r", actor="slow", input=msgspec.Raw(b"1"), **given)


async def test_what_a_start_by_name_leaves_open_is_as_the_producer_declares_it() -> None:
    transport = StoreTransport(MemoryStore(), app.registry)
    started = (await transport.start(meta())).meta
    assert (started.queue, started.timeout, started.idle_timeout, started.ahead) == ("slow", 60.0, 5, 3)
    assert started.created > 0
    await transport.aclose()


async def test_what_a_start_says_counts() -> None:
    transport = StoreTransport(MemoryStore(), app.registry)
    started = (await transport.start(meta(queue="other", timeout=2.0, idle_timeout=1.0, ahead=9))).meta
    assert (started.queue, started.timeout, started.idle_timeout, started.ahead) == ("other", 2.0, 1.0, 9)
    await transport.aclose()


@pytest.mark.parametrize(
    ("given", "field"),
    [({"timeout": 0.0}, "timeout"), ({"ahead": -1}, "ahead"), ({"queue": "no name"}, "queue"), ({"key": ""}, "key")],
)
async def test_what_does_not_fit_is_refused_by_name_and_starts_nothing(given: dict[str, Any], field: str) -> None:
    transport = StoreTransport(MemoryStore(), app.registry)
    with pytest.raises(loom.InvalidInput) as raised:
        await transport.start(meta(**given))
    assert raised.value.details == {"field": field}
    assert await transport.heads() == []
    await transport.aclose()

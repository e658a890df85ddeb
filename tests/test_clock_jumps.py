"""P13: the wall clock may jump an hour either way; order and safety rest on epochs, positions and monotonic clocks."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import loom
from tests.servers.servers import Servers

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("place", ["memory", "sqlite", "valkey"])
async def test_an_hour_either_way_changes_neither_order_nor_owner(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, servers: Servers
) -> None:
    """Of our clock, and of the store's, where that has one of its own."""
    real, offset = time.time, 0.0
    monkeypatch.setattr(time, "time", lambda: real() + offset)
    app, clock = loom.App(), servers.clock()

    @app.actor("jumpy", timeout=600)
    async def jumpy(n: int, ctx: loom.Context) -> AsyncIterator[int]:
        nonlocal offset
        for i in range(n):
            offset = (0.0, 3600.0, -3600.0)[i % 3]
            clock.jump(offset)
            yield i
            await ctx.receive("go")  # each chunk is stored and read before the next jump

    url = {"memory": "memory://", "sqlite": f"sqlite:///{tmp_path / 'runs.db'}"}.get(place)
    if url is None:
        url = servers.server(clock=clock).start().url(retention="24h")
    async with loom.connect(url, app=app, worker=True, lease=1.0) as client, client.stream(jumpy, 30) as run:
        chunks = []
        async for chunk in run:
            chunks.append(chunk)
            if chunk.type == "data":
                await run.send("go")
    assert [chunk.seq for chunk in chunks] == list(range(1, 33))
    assert [chunk.data for chunk in chunks if chunk.type == "data"] == list(range(30))
    assert [chunk.type for chunk in chunks if chunk.type != "data"] == ["start", "complete"]
    times = [chunk.time for chunk in chunks]
    assert max(times) - min(times) > 7000, "no jump hit: this proved nothing"

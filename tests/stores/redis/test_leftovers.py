"""What the queue holds in the server, and that it lets go of it."""

from __future__ import annotations

import pytest

from loom.model import limits
from loom.model.run import Meta, WorkerInfo
from loom.stores.redis import RedisStore, parse_url
from loom.stores.redis.keys import Keys
from tests.servers.fixtures import own
from tests.servers.server import Server

pytestmark = pytest.mark.anyio


def info(name: str) -> WorkerInfo:
    return WorkerInfo(name=name, host="box", pid=1, queues=("default",), concurrency=1, running=0, started=1.0)


async def test_nothing_is_left_of_a_run_that_was_acknowledged_nor_of_a_worker_that_was_killed(
    valkey: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for the counters. What a worker was told last goes when it is silent for too long."""
    url = own(valkey.url())
    keys, raw = Keys(parse_url(url).prefix), valkey.client()
    async with RedisStore(parse_url(url)) as store:
        await store.workers.register(info("killed"))
        for run in ("one", "two"):
            await store.queue.put(Meta(run=run, actor="actor", key="key", priority="low"))
        for _ in range(2):
            claim = await store.queue.claim(["default"], "killed", lease=10.0, wait=0.0)
            assert claim is not None
            await store.queue.ack(claim)
        assert {key for key in keys.queues if raw.exists(key)} == {keys.queue, keys.workers, keys.register[0]}
        await store.queue.put(Meta(run="three", actor="actor"))
        assert await store.queue.claim(["default"], "killed", lease=10.0, wait=0.0) is not None
        assert raw.exists(f"{keys.queue}:told")
        monkeypatch.setattr(limits, "WORKER_SEEN", 0.0)
        await store.workers.register(info("alive"))
        assert raw.zrange(keys.workers, 0, -1) == raw.hkeys(keys.register[0]) == ["alive"]
        assert not raw.exists(f"{keys.queue}:told")

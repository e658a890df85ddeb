"""What calls cost the server, counted: neither bytes nor commands grow with what a call is not about."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from loom.model import limits
from loom.model.chunk import Batch, Chunk
from loom.model.errors import CursorExpired
from loom.model.run import Meta, WorkerInfo
from loom.stores.redis import RedisStore, parse_url
from loom.stores.redis.client.functions import CLEARED, SILENT_WORKERS
from loom.stores.redis.keys import Keys
from loom.testing.author import Author
from loom.wire.json import encode
from tests.servers.server import Server

pytestmark = pytest.mark.anyio

LARGE = "x" * 200_000

OF_CONNECTIONS = {"info", "config|resetstat", "ping", "hello", "client|setinfo", "spublish", "publish"}
"""Commands of connections and of the store's own echo, which may come at any time."""


def sent(server: Server) -> int:
    """The bytes that the server has sent to all its clients."""
    return int(server.client().info("stats")["total_net_output_bytes"])


def ran(server: Server) -> dict[str, int]:
    """How often each command was run since this was asked last, also by our functions."""
    raw = server.client()
    calls = {name[8:]: stats["calls"] for name, stats in raw.info("commandstats").items()}
    raw.config_resetstat()
    return {name: count for name, count in calls.items() if name not in OF_CONNECTIONS}


async def test_a_light_head_sends_neither_input_nor_batches(store: RedisStore, valkey: Server) -> None:
    await store.runs.create(Meta(run="run", actor="actor", input=msgspec.Raw(encode(LARGE))))
    author = await Author.take(store.logs, "run")
    for said in (Chunk("data", LARGE), Chunk("complete", LARGE)):
        await author.say(said)
        before = sent(valkey)
        for _ in range(10):
            await store.runs.get("run", full=False)
            await store.runs.heartbeat("run")
        assert sent(valkey) - before < len(LARGE) / 2


async def test_a_head_of_an_open_run_sends_no_batch(store: RedisStore, valkey: Server) -> None:
    author = await Author.start(store)
    await author.say(Chunk("data", LARGE))
    before = sent(valkey)
    await store.runs.get("run")
    await store.runs.create(Meta(run="run", actor="actor"))
    assert sent(valkey) - before < len(LARGE) / 2


async def test_a_worker_that_attends_reads_none_of_the_others(store: RedisStore, valkey: Server, url: str) -> None:
    """But some of those that fell silent, so many at a time."""
    silent = SILENT_WORKERS * 2 + 50
    await asyncio.gather(
        *(store.workers.register(WorkerInfo(name=f"w{number}", started=1.0)) for number in range(silent))
    )
    ran(valkey)
    await store.workers.register(WorkerInfo(name="w0", started=1.0))
    assert ran(valkey) == {"fcall": 1, "time": 1, "zadd": 1, "hset": 1, "zrangebyscore": 1, "hget": 1}


async def test_workers_that_fell_silent_are_forgotten_bit_by_bit(
    store: RedisStore, valkey: Server, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent, keys, raw = SILENT_WORKERS * 2 + 50, Keys(parse_url(url).prefix), valkey.client()
    await asyncio.gather(
        *(store.workers.register(WorkerInfo(name=f"w{number}", started=1.0)) for number in range(silent))
    )
    await store.workers.request_drain("w7")
    monkeypatch.setattr(limits, "WORKER_SEEN", 0.0)
    left = []
    for _ in range(3):
        await store.workers.register(WorkerInfo(name="alive", started=1.0))
        left.append(raw.zcard(keys.workers))
        assert raw.hlen(keys.register[0]) == left[-1]
    assert left == [silent - SILENT_WORKERS + 1, 51, 1]
    assert not raw.exists(keys.register[1])


@pytest.mark.parametrize("count", [20, 6000])
async def test_trimming_reads_none_of_what_it_forgets(store: RedisStore, valkey: Server, url: str, count: int) -> None:
    """It clears it away bit by bit; what the log holds is known without a look at it."""
    author, out = await Author.start(store), Keys(parse_url(url).prefix).of_log("run")[1]
    batches = [author.batch("data")]
    for seq in range(3, count + 3):
        batches.append(Batch(author.epoch, seq, seq, batches[0].payload))
    await asyncio.gather(*(store.logs.append("run", batch) for batch in batches))
    ran(valkey)
    assert await store.logs.trim("run", count) == count
    done = ran(valkey)
    assert done["fcall"] >= count / CLEARED
    assert done["xrange"] == done["xtrim"] == done["hmget"] == done["fcall"]
    assert set(done) == {"fcall", "hmget", "xrange", "hset", "xtrim"}
    assert valkey.client().xlen(out) <= 3 + 100  # less than a node of the stream
    kept = sum(len(batch.payload) for batch in batches if batch.first >= count)
    assert (await store.logs.fence("run", "another")).size == kept
    with pytest.raises(CursorExpired):
        await store.logs.read("run")
    assert (await store.logs.read("run", (await store.runs.get("run")).earliest)).batches[0].first == count

"""What calls cost the server, counted: neither bytes nor commands grow with what a call is not about."""

from __future__ import annotations

import msgspec
import pytest

from loom.model.chunk import Chunk
from loom.model.run import Meta
from loom.stores.redis import RedisStore
from loom.testing.author import Author
from loom.wire.json import encode
from tests.servers.server import Server

pytestmark = pytest.mark.anyio

LARGE = "x" * 200_000


def sent(server: Server) -> int:
    """The bytes that the server has sent to all its clients."""
    return int(server.client().info("stats")["total_net_output_bytes"])


async def test_a_light_head_sends_neither_input_nor_batches(store: RedisStore, valkey: Server) -> None:
    await store.create(Meta(run="run", actor="actor", input=msgspec.Raw(encode(LARGE))))
    author = await Author.take(store, "run")
    for said in (Chunk("data", LARGE), Chunk("complete", LARGE)):
        await author.say(said)
        before = sent(valkey)
        for _ in range(10):
            await store.head("run", full=False)
            await store.touch("run")
        assert sent(valkey) - before < len(LARGE) / 2


async def test_a_head_of_an_open_run_sends_no_batch(store: RedisStore, valkey: Server) -> None:
    author = await Author.start(store)
    await author.say(Chunk("data", LARGE))
    before = sent(valkey)
    await store.head("run")
    await store.create(Meta(run="run", actor="actor"))
    assert sent(valkey) - before < len(LARGE) / 2

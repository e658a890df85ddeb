"""Who sweeps for all."""

from __future__ import annotations

import pytest

from loom.model.run import Meta
from loom.stores.redis import RedisStore, parse_url
from tests.servers.server import Server
from tests.servers.servers import Servers

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
async def test_a_clock_that_jumps_leaves_nobody_unswept(jump: float, servers: Servers) -> None:
    """Also when the process whose turn it was is gone."""
    clock = servers.clock()
    with servers.server(clock=clock) as server:
        async with RedisStore(parse_url(server.url())) as gone, RedisStore(parse_url(server.url())) as other:
            await other.runs.create(Meta(run="orphan", actor="actor"))
            assert (await gone.sweep()).requeued == 1
            await other.runs.create(Meta(run="run", actor="actor"))
            assert (await other.sweep()).requeued == 0, "it was not its turn"
            before = seconds(server)
            clock.jump(jump)
            while abs(seconds(server) - before) < 3000:
                pass
            assert (await other.sweep()).requeued == 1


def seconds(server: Server) -> int:
    with server.client() as client:
        return int(client.time()[0])

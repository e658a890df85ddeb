"""A password that is changed under an idle worker: a line of the log each, slow tries, and it goes on when told."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

import loom
from loom.model import limits
from tests.servers.server import Server
from tests.servers.servers import Servers
from tests.waits import until

pytestmark = pytest.mark.anyio

RIGHTS = ("on", "~*", "&*", "+@all")
REFUSALS = 40


@pytest.fixture(params=["valkey", "redis7"])
def server(request: pytest.FixtureRequest, servers: Servers) -> Iterator[Server]:
    with servers.server(request.param) as server:
        yield server


async def refused(server: Server, *, more: int) -> None:
    """Until the server has refused so many more logins."""
    begin = _refusals(server)
    await until(lambda: _refusals(server) >= begin + more, seconds=60)


def _refusals(server: Server) -> int:
    counted: str = server.ask("INFO", "commandstats")["cmdstat_hello"]["failed_calls"]
    return int(counted)


async def mended(client: loom.Client) -> int:
    """A call may still share a login that had begun before."""
    while True:
        try:
            result: int = await client.execute("one", 2)
        except loom.Unauthorized:
            await asyncio.sleep(0)
        else:
            return result


async def test_a_rotated_password(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(limits, "REFUSED_RETRY", 0.02)
    monkeypatch.setattr("loom.engine.run.worker.CLAIM_WAIT", 0.1)
    monkeypatch.setattr("loom.engine.run.watchman.WATCH_PUBLISHED", 0.1)
    app = loom.App()

    @app.actor
    async def one(n: int) -> int:
        return n + 1

    caplog.set_level("INFO", "loom")
    server.ask("ACL", "SETUSER", "worker", ">first", *RIGHTS)
    url = server.url(user="worker", password="first")
    async with loom.connect(url, app=app, worker=True, drain=0) as client:
        assert await client.execute("one", 1) == 2
        caplog.clear()
        server.ask("ACL", "SETUSER", "worker", "resetpass", ">second")
        server.ask("CLIENT", "KILL", "USER", "worker")
        await refused(server, more=REFUSALS)
        said = [record for record in caplog.records if record.levelname != "DEBUG"]
        assert not any(record.exc_info for record in said)
        wrong = [record.getMessage() for record in said if "the user or password is wrong" in record.getMessage()]
        assert len(wrong) == len(set(wrong)) <= 3, "the worker, its watchman, its notices"
        assert len(said) <= len(wrong) + 6, "besides what the connections' end was, at most once each"
        server.ask("ACL", "SETUSER", "worker", "resetpass", ">first")
        async with asyncio.timeout(20):
            assert await mended(client) == 3
    assert sum("answers again" in record.getMessage() for record in caplog.records) <= 2

"""A URL names a store or a server; what names none is told at once, and what is secret in it is not shown."""

from __future__ import annotations

import pytest

import loom
from loom.connect import open_store
from tests.remote.scripted import scripted, sized
from tests.remote.test_follower import then_whole


@pytest.mark.parametrize(
    "url",
    ["", "runs.db", "redis://u:secret@h", "http://u:secret@[::1", "sqlite://h/x", "sqlite:///", "sqlite:///a%00b"],
)
def test_what_names_no_store_is_refused(url: str) -> None:
    with pytest.raises(loom.UsageError) as caught:
        open_store(url)
    assert "secret" not in str(caught.value)


def test_what_is_no_url_is_refused_before_anything_is_opened() -> None:
    with pytest.raises(loom.UsageError, match="no URL"):
        loom.connect("http://[::1")


@pytest.mark.anyio
async def test_an_outage_of_a_server_is_told_and_that_it_is_over() -> None:
    told: list[bool] = []
    async with scripted() as server:
        server.react = then_whole(server, [sized("503 Service Unavailable")] * 2)
        async with loom.connect(server.url, on_outage=told.append) as client:
            assert [chunk.type async for chunk in client.run("run").chunks()][-1] == "complete"
    assert told == [True, False]

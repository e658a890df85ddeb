"""A kind of producer from outside the package: registered by `App.add`, and driven on every path."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest

import loom
import loom.testing
from loom.producers import Driver, Producer
from loom.wire.sse import Decoder
from tests.server.harness import rig

pytestmark = pytest.mark.anyio


class Canned:
    """Says the items of a list; a new attempt goes on behind those that were said."""

    kind = "canned"
    threaded = False
    looks_back = True

    def __init__(self, items: list[Any]) -> None:
        self._items = items

    async def drive(self, arguments: Mapping[str, Any], ctx: loom.Context) -> AsyncIterator[Any]:
        for item in self._items[len([one for one in ctx.previous if one.type == "data"]) :]:
            if item == "fail" and ctx.attempt == 1:
                raise OSError("the tape broke")
            yield item
        yield loom.Result(len(self._items))


def canned(app: loom.App, name: str) -> Callable[[Callable[[], list[Any]]], Producer[..., Any]]:
    def decorate(items: Callable[[], list[Any]]) -> Producer[..., Any]:
        driver: Driver = Canned(items())
        producer: Producer[..., Any] = Producer(name, items, driver=driver, retry=loom.Retry(mode="continue"))
        app.add(producer)
        return producer

    return decorate


app = loom.App()


@canned(app, "greeting")
def greeting() -> list[Any]:
    """Says hello."""
    return ["hello", "fail", "world"]


async def test_a_client_runs_it_and_a_retry_continues() -> None:
    async with loom.testing.client(app) as client:
        run = await client.start(greeting)
        chunks = [chunk async for chunk in run.chunks()]
    assert [chunk.data for chunk in chunks if chunk.type == "data"] == ["hello", "fail", "world"]
    starts = [chunk.data for chunk in chunks if chunk.type == "start"]
    assert [(start["attempt"], start["kept_through"]) for start in starts] == [(1, 0), (2, 2)]
    assert chunks[-1].data == 3


async def test_it_runs_over_http() -> None:
    async with app.resources() as resources, rig(app.registry, worker=True, resources=resources) as server:
        assert (await server.ask("POST", "/runs", {"actor": "greeting", "id": "r"})).status == 201
        answer = await server.ask("GET", "/runs/r/events")
        events = [event.type for event in Decoder().feed(answer.body)]
    assert events.count("data") == 3
    assert events[-1] == "complete"


def test_it_runs_from_the_command_line() -> None:
    command = [sys.executable, "-m", "loom", "actor", "run", "greeting", "--store", "memory://"]
    command += ["--app", "tests.producers.test_driver:app"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, "3"), done.stderr


def test_what_it_declares_is_checked_and_the_apps_retention_holds() -> None:
    with pytest.raises(loom.UsageError, match="concurrency"):
        Producer("p", greeting, driver=Canned([]), concurrency=0)
    misspelled: Any = {"tiemout": 3}
    with pytest.raises(TypeError, match="declares no 'tiemout'"):
        Producer("p", greeting, driver=Canned([]), **misspelled)
    keeping = loom.App(retention=60)
    assert canned(keeping, "p")(list).options.given["retention"] == 60


class Bare:
    """As a driver is written by who reads of `drive` alone."""

    def drive(self, arguments: Mapping[str, Any], ctx: loom.Context) -> None: ...


@pytest.mark.parametrize(
    ("driver", "why"),
    [(Bare(), "no kind and no threaded and no looks_back"), (Canned, "not its class"), (None, "no kind")],
)
def test_what_is_no_driver_is_refused_where_it_is_given(driver: Any, why: str) -> None:
    """Not in the run, which would never end."""
    with pytest.raises(loom.UsageError, match=f"^p: driver=.*{why}"):
        Producer("p", greeting, driver=driver)


def test_what_is_no_producer_is_not_added() -> None:
    function: Any = print
    with pytest.raises(loom.UsageError, match="Producer, not <built-in function print>"):
        loom.App().add(function)

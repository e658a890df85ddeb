"""The blocking client: every call of the async one, through one portal that ends with its block."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

import loom
from loom.blocking import SyncClient
from loom.model import limits
from loom.model.errors import HandleClosed, UsageError

TIMEOUT = 20.0


def declared() -> loom.App:
    app = loom.App()

    @app.actor
    async def count(n: int) -> AsyncIterator[int]:
        for i in range(n):
            yield i

    @app.actor
    async def wait(ctx: loom.Context) -> str:
        text: str = (await ctx.receive("word")).data
        return text

    return app


@pytest.fixture
def client() -> Iterator[SyncClient]:
    with loom.connect_sync("memory://", app=declared(), worker=True, drain=0.0) as client:
        yield client


def test_everything_a_run_can_do(client: SyncClient) -> None:
    run = client.start("count", 3)
    assert run.result() == [0, 1, 2]
    assert list(run.values()) == [0, 1, 2]
    assert [chunk.type for chunk in run] == ["start", "data", "data", "data", "complete"]
    assert [chunk.seq for chunk in run.chunks(after=next(run.chunks()).cursor)] == [2, 3, 4, 5]
    assert run.text() == ""
    assert run.status() == run.wait()
    assert client.run(run.id).status().state == "completed"
    waiting = client.start("wait")
    waiting.send("word", "hello")
    assert waiting.result(timeout=TIMEOUT) == "hello"
    assert client.execute("count", 2) == [0, 1]
    assert [actor.name for actor in client.actors()] == ["count", "wait"]
    assert len(client.runs(actor="count")) == 2


def test_what_is_printed_says_what_it_is(client: SyncClient) -> None:
    run = client.start("wait")
    assert repr(run) == f"<SyncRun {run.id}>"
    assert repr(client).startswith("<SyncClient on ")
    owned = client.stream("wait")
    assert repr(owned) == "<SyncOwnedRun not started>"
    with owned as mine:
        assert repr(owned) == f"<SyncOwnedRun {mine.id}>"
    with pytest.raises(TimeoutError, match=rf"^run {run.id} has not ended within 0\.01 s; it goes on$"):
        run.result(timeout=0.01)
    with pytest.raises(TimeoutError, match=r"has not ended within 0\.01 s"):
        run.wait(0.01)
    run.send("word", {"x": "y" * 1000})
    assert run.result() == {"x": "y" * 1000}
    shown = repr(run.status(full=True))
    assert " object at 0x" not in shown
    assert 'result={"x":"yyy' in shown
    assert len(shown) < 1000


def test_a_call_that_has_too_many_arguments_is_told_in_english(client: SyncClient) -> None:
    app = declared()
    with pytest.raises(loom.InvalidInput, match="count takes 1 positional argument, 2 were given"):
        client.start(app.registry.get("count"), 1, 2)
    with pytest.raises(loom.InvalidInput, match="wait takes 0 positional arguments, 1 was given"):
        client.start(app.registry.get("wait"), 1)


def test_an_owned_run_is_cancelled_by_leaving(client: SyncClient) -> None:
    with client.stream("wait") as run:
        assert run.status().state in ("queued", "running")
    assert run.wait(timeout=TIMEOUT).state == "cancelled"
    assert list(client.stream("count", 2).values()) == [0, 1]
    assert len(list(client.stream("count", 2))) == 4


def test_a_run_whose_loop_was_left_is_cancelled_before_its_client_is_closed(tmp_path: Path) -> None:
    """Not only once its owner is missed."""
    url = f"sqlite:///{tmp_path / 'runs.db'}"
    with loom.connect_sync(url, app=declared(), worker=True, drain=0.0) as client:
        with loom.connect_sync(url) as other:
            for _ in other.stream("wait"):
                break
        assert client.run(client.runs()[0].meta.run).wait(timeout=limits.OWNER_LEASE / 2).state == "cancelled"


def test_a_cancel_is_confirmed(client: SyncClient) -> None:
    run = client.start("wait")
    run.cancel(wait=True, timeout=TIMEOUT)
    with pytest.raises(loom.RunCancelled):
        run.result()


def test_a_block_that_cannot_be_entered_leaves_no_thread() -> None:
    before = threading.active_count()
    for url, error in (("nowhere://", UsageError), ("memory://", UsageError)):
        with pytest.raises(error), loom.connect_sync(url):
            raise AssertionError("it must not be entered")
    assert threading.active_count() == before


def test_what_is_used_after_the_block_says_so() -> None:
    with loom.connect_sync("memory://", app=declared(), worker=True, drain=0.0) as client:
        run = client.start("count", 1)
        chunks = run.chunks()
        next(chunks)
    for use in (run.status, run.result, lambda: next(chunks), lambda: client.start("count", 1)):
        with pytest.raises(HandleClosed):
            use()

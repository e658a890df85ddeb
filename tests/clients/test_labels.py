"""Labels: given, declared, and what runs are found by; the same at every place."""

from __future__ import annotations

from typing import Any

import pytest

import loom
from loom.model.errors import InvalidInput, UsageError

from .places import Connected, ConnectedSync

pytestmark = pytest.mark.anyio


def labelled() -> loom.App:
    app = loom.App()

    @app.actor(labels={"team": "a"})
    async def work(n: int = 0) -> int:
        return n

    @app.actor
    async def plain(n: int = 0) -> int:
        return n

    return app


async def test_labels_are_given_or_declared(connected: Connected) -> None:
    app = labelled()
    work = app.registry.get("work")
    async with connected(app) as client:
        for producer in (work, "work"):
            for given, kept in (
                ({}, {"team": "a"}),
                ({"labels": {"user": "42"}}, {"user": "42"}),
                ({"labels": {}}, {}),
                ({"labels": None}, {}),
            ):
                run = await client.start(producer, **given)
                head = await run.status()
                assert (head.meta.labels, head.meta.assumed) == (kept, ())
                await run.wait()
        bound = await client.start(work.using(labels={"user": "7", "at": "12:30"}), 1)
        assert (await client.retry(bound.id if await bound.wait() else "")).id
        assert len(await client.runs(labels={"at": "12:30"})) == 2


async def test_labels_that_do_not_fit_start_nothing(connected: Connected) -> None:
    async with connected(labelled()) as client:
        for wrong in ({"user": 42}, {"a:b": "x"}, {"user": "two\nlines"}, {"no name": "x"}):
            labels: Any = wrong
            with pytest.raises(InvalidInput, match="labels"):
                await client.start("work", labels=labels)
            with pytest.raises(InvalidInput, match="labels"):
                await client.runs(labels=labels)
        assert await client.runs() == []


async def test_lists_that_there_are_not_are_refused(connected: Connected) -> None:
    """An empty list would say that there are no such runs."""
    async with connected(labelled()) as client:
        for field, wrong in (("state", "done"), ("limit", 0), ("limit", "x")):
            asked: dict[str, Any] = {field: wrong}
            with pytest.raises(UsageError, match=f"^{field}: '?{wrong}'? is "):
                await client.runs(**asked)
        for field in ("actor", "parent", "root"):
            asked = {field: "no name"}
            with pytest.raises(InvalidInput, match=f"^{field}: 'no name'"):
                await client.runs(**asked)
        for field, wrong in (("place", "here"), ("limit", 0)):
            asked = {field: wrong}
            with pytest.raises(UsageError, match=f"^{field}: "):
                await client.entries(**asked)


async def test_runs_are_found_by_their_labels(connected: Connected) -> None:
    async with connected(labelled()) as client:
        for n in range(6):
            labels = {"user": str(n % 2), "third": str(n % 3)}
            run = await client.start("work" if n < 3 else "plain", n, id=f"run{n}", labels=labels)
            await run.wait()

        async def found(**filters: Any) -> list[str]:
            return [head.meta.run for head in await client.runs(**filters)]

        assert await found(labels={"user": "1"}) == ["run5", "run3", "run1"]
        assert await found(labels={"user": "1", "third": "0"}) == ["run3"]
        assert await found(labels={"user": "1"}, actor="work") == ["run1"]
        assert await found(labels={"user": "0"}, state="completed", limit=2) == ["run4", "run2"]
        assert await found(labels={"user": "0"}, before="run2") == ["run0"]
        assert await found(labels={"user": "2"}) == []
        assert await found(labels={}, limit=1) == ["run5"]
        assert await found(parent="run1") == await found(root="run1") == []


def test_code_that_blocks_finds_them_too(connected_sync: ConnectedSync) -> None:
    with connected_sync(labelled()) as client:
        run = client.start("plain", 1, labels={"user": "42"})
        client.start("plain", 1)
        assert [head.meta.run for head in client.runs(labels={"user": "42"})] == [run.id]
        assert client.runs(parent=run.id, root=run.id) == []

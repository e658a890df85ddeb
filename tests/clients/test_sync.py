"""For code that blocks: the same contract through `connect_sync`, at every place."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from typing import Any, cast

import pytest

import loom
from loom.testing import FakeAI

from .places import ConnectedSync


class Note:
    """What producers note, for a test in another thread."""

    def __init__(self) -> None:
        self.gone = threading.Event()
        self.app = loom.App()

        @self.app.actor
        async def count(ctx: loom.Context, n: int, endless: bool = False) -> AsyncIterator[int]:
            try:
                for i in range(n):
                    yield i
                if endless:
                    await ctx.receive("stop")
            finally:
                self.gone.set()

        @self.app.actor
        def words(n: int) -> Iterator[str]:
            for i in range(n):
                yield f"w{i} "

        @self.app.actor
        async def fail() -> AsyncIterator[str]:
            yield "so far"
            raise ValueError("because")

        self.count, self.words, self.fail = count, words, fail


def test_a_run_is_streamed(connected_sync: ConnectedSync) -> None:
    note = Note()
    with connected_sync(note.app) as client:
        with client.stream(note.count, 3) as run:
            chunks = list(run)
        assert [chunk.type for chunk in chunks] == ["start", "data", "data", "data", "complete"]
        assert list(client.stream(note.words, 2).values()) == ["w0 ", "w1 "]
        assert [chunk.seq for chunk in client.stream(note.words, 2)] == [1, 2, 3, 4]


def test_leaving_the_block_cancels(connected_sync: ConnectedSync) -> None:
    note = Note()
    with connected_sync(note.app) as client:
        with client.stream(note.count, 3, endless=True) as run, closing(cast(Any, run.values())) as values:
            assert next(values) == 0
        assert run.wait(timeout=20).state == "cancelled"
        assert note.gone.is_set()


def test_a_started_run_and_its_handle(connected_sync: ConnectedSync) -> None:
    note = Note()
    with connected_sync(note.app) as client:
        run = client.start(note.count, 3, endless=True)
        assert client.run(run.id).id == run.id
        with pytest.raises(TimeoutError):
            run.result(timeout=0.05)
        run.send("stop")
        assert run.result(timeout=20) == [0, 1, 2]
        assert run.status().state == "completed"
        assert [head.meta.run for head in client.runs()] == [run.id]
        assert [actor.name for actor in client.actors()] == ["count", "fail", "words"]


def test_resuming_at_every_cut(connected_sync: ConnectedSync) -> None:
    note = Note()
    with connected_sync(note.app) as client:
        run = client.start(note.count, 5)
        whole = list(run.chunks())
        for place, chunk in enumerate(whole, 1):
            assert list(run.chunks(after=chunk.cursor)) == whole[place:]


def test_results_and_errors(connected_sync: ConnectedSync) -> None:
    note = Note()
    with connected_sync(note.app) as client:
        assert client.execute(note.words, 3) == "w0 w1 w2 "
        run = client.start(note.words, 2)
        run.wait(timeout=20)
        assert run.text() == "w0 w1 "
        failing = client.start(note.fail)
        with pytest.raises(loom.RunFailed, match="because"):
            list(failing)
        assert [chunk.type for chunk in failing.chunks(raise_errors=False)] == ["start", "data", "error"]
        with pytest.raises(loom.InvalidInput):
            client.start("count", "three")
        with pytest.raises(loom.UnknownProducer):
            client.start("nobody")


def test_cancel(connected_sync: ConnectedSync) -> None:
    note = Note()
    with connected_sync(note.app) as client:
        run = client.start(note.count, 1, endless=True)
        run.cancel(wait=True, timeout=20)
        with pytest.raises(loom.RunCancelled):
            run.result()


def test_from_several_threads(connected_sync: ConnectedSync) -> None:
    note = Note()
    results: list[list[int]] = []
    with connected_sync(note.app) as client:

        def work() -> None:
            results.append(list(client.stream(note.count, 20).values()))

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
    assert results == [list(range(20))] * 8


def test_after_leaving_everything_says_closed(connected_sync: ConnectedSync) -> None:
    note = Note()
    with connected_sync(note.app) as client:
        run = client.start(note.count, 1)
        run.wait(timeout=20)
    for call in (client.runs, run.status, run.result, lambda: list(run), lambda: client.start(note.count, 1)):
        with pytest.raises(loom.HandleClosed):
            cast(Any, call)()


def test_what_the_models_used(connected_sync: ConnectedSync) -> None:
    answer: list[Any] = ["Hi", loom.FinishReasonPart("stop"), loom.UsagePart(3, 1)]
    app = loom.App(ai=FakeAI(answer))

    @app.actor
    async def chat(ctx: loom.Context) -> str:
        return await ctx.ai.complete("hi")

    with connected_sync(app) as client:
        assert client.start(chat).usage() == loom.Usage(3, 1, calls=1)

"""URL to client: what each names, what is refused before anything is opened, and that leaving closes all."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import loom
from loom.connect import connect, default_ai, open_store
from loom.stores.memory import MemoryStore
from loom.stores.sqlite import SqliteStore
from tests.remote.scripted import scripted, sized
from tests.remote.test_follower import then_whole

pytestmark = pytest.mark.anyio


def an_app(**options: Any) -> loom.App:
    app = loom.App(**options)

    @app.actor
    async def add(a: int, b: int) -> int:
        return a + b

    return app


# --- which store -----------------------------------------------------------------------------------------------------


def test_memory_is_named() -> None:
    assert isinstance(open_store("memory://"), MemoryStore)


@pytest.mark.parametrize(
    ("url", "file"),
    [
        ("sqlite:///runs.db", "runs.db"),
        ("sqlite:///some/where/runs.db", "some/where/runs.db"),
        ("sqlite:///a%20b%3F.db", "a b?.db"),
    ],
)
async def test_three_slashes_are_a_relative_path(
    url: str, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "some/where").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    async with open_store(url):
        assert (tmp_path / file).is_file()


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("localhost:8700", "http://localhost:8700"), ("127.0.0.1:8700", "http://127.0.0.1:8700"),
        ("[::1]:8700", "http://[::1]:8700"), ("api.example.com:80/loom", "http://api.example.com:80/loom"),
        ("localhost:6379", "redis://localhost:6379"), ("my-app_1:8700", "http://my-app_1:8700"),
        ("runs.db", "sqlite:///runs.db"), ("data/runs.db", "sqlite:///data/runs.db"),
    ],
)  # fmt: skip
def test_what_is_no_url_yet_is_told_as_the_url_that_was_meant(text: str, meant: str) -> None:
    for call in (connect, open_store, loom.connect_sync):
        with pytest.raises(loom.UsageError) as refused:
            call(text)
        assert refused.value.message == f"no store is named by {text!r}: did you mean {meant}?"


async def test_four_slashes_are_an_absolute_path(tmp_path: Path) -> None:
    async with open_store(f"sqlite:///{tmp_path}/runs.db") as store:
        assert (tmp_path / "runs.db").is_file()
        assert store.durability == "disk"


async def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    async with open_store("sqlite:///~/runs.db"):
        assert (tmp_path / "runs.db").is_file()


@pytest.mark.parametrize("durability", ["disk", "process"])
def test_durability_is_chosen_by_the_url(durability: str) -> None:
    store = open_store(f"sqlite:///runs.db?durability={durability}")
    assert isinstance(store, SqliteStore)
    assert store.durability == durability


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("", "no store"),
        ("runs.db", "sqlite:///runs.db"),
        ("postgres://host/db", "memory://, sqlite:///path"),
        ("sqlite://runs.db", "three slashes"),
        ("sqlite://", "three slashes"),
        ("sqlite:///", "three slashes"),
        ("sqlite:///runs.db?fast=1", "'fast'"),
        ("sqlite:///runs.db?durability=memory", "'disk' or 'process'"),
    ],
)
def test_what_names_no_store_is_told(url: str, told: str) -> None:
    with pytest.raises(loom.UsageError, match=told.replace("?", r"\?")):
        open_store(url)


def test_a_refused_url_does_not_show_its_password() -> None:
    with pytest.raises(loom.UsageError) as raised:
        open_store("redis2://user:secret@host/0?password=secret")
    assert "secret" not in str(raised.value)


# --- refused before anything is opened -------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["http://localhost:1", "https://localhost:1"])
def test_a_worker_needs_a_store(url: str) -> None:
    with pytest.raises(loom.UsageError, match="needs a store"):
        connect(url, app=an_app(), worker=True)


def test_a_worker_needs_an_app() -> None:
    with pytest.raises(loom.UsageError, match="app="):
        connect("sqlite:///runs.db", worker=True)


def no_thread_is_left(before: list[threading.Thread]) -> None:
    """A thread that has told all may still be at its last step."""
    new = [thread for thread in threading.enumerate() if thread not in before]
    for thread in [thread for thread in new if thread.name.startswith("loom-")]:
        thread.join(5.0)
        assert not thread.is_alive()


async def test_what_cannot_be_opened_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    threads, tasks = threading.enumerate(), asyncio.all_tasks()
    with pytest.raises(loom.UsageError, match="its folder does not exist"):
        async with connect(f"sqlite:///{tmp_path}/nowhere/runs.db", app=an_app(), worker=True):
            raise AssertionError
    no_thread_is_left(threads)
    assert asyncio.all_tasks() == tasks


# --- a client --------------------------------------------------------------------------------------------------------


async def test_a_worker_of_its_own_runs_what_it_starts() -> None:
    app = an_app()
    async with connect("memory://", app=app, worker=True) as client:
        assert await client.execute("add", a=1, b=2) == 3


async def test_an_app_lets_inputs_be_checked_before_anything_is_sent(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/runs.db"
    async with connect(url, app=an_app()) as client:
        with pytest.raises(loom.InvalidInput):
            await client.start("add", a="x", b=2)
        assert await client.runs() == []
    async with connect(url) as client:
        run = await client.start("add", a="x", b=2)
        assert [head.meta.run for head in await client.runs()] == [run.id]


async def test_leaving_closes_all_in_order() -> None:
    told: list[str] = []

    @asynccontextmanager
    async def lifespan(app: loom.App) -> AsyncIterator[None]:
        told.append("opened")
        yield
        told.append("closed")

    app = an_app(lifespan=lifespan)

    @app.actor
    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            told.append("stopped")

    before = asyncio.all_tasks()
    async with connect("memory://", app=app, worker=True, drain=0.0) as client:
        run = await client.start("endless")
        async for chunk in run.chunks():
            if chunk.type == "start":
                break
    assert told == ["opened", "stopped", "closed"]
    assert asyncio.all_tasks() == before
    with pytest.raises(loom.HandleClosed):
        await client.runs()


async def test_a_lifespan_that_fails_is_told_and_the_store_is_closed(tmp_path: Path) -> None:
    @asynccontextmanager
    async def lifespan(app: loom.App) -> AsyncIterator[None]:
        raise ZeroDivisionError
        yield

    before = threading.enumerate()
    with pytest.raises(ZeroDivisionError):
        async with connect(f"sqlite:///{tmp_path}/runs.db", app=an_app(lifespan=lifespan), worker=True):
            raise AssertionError
    no_thread_is_left(before)


# --- the model -------------------------------------------------------------------------------------------------------


def test_without_a_server_in_the_environment_there_is_no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    assert default_ai() is None


@pytest.mark.parametrize("url", ["redis://u:secret@h:x", "http://u:secret@[::1", "sqlite://h/x", "sqlite:///a%00b"])
def test_a_malformed_url_is_refused_and_what_is_secret_in_it_not_shown(url: str) -> None:
    with pytest.raises(loom.UsageError) as raised:
        open_store(url)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("url", ["memory://", "sqlite:///runs.db", "http://localhost:8700"])
def test_credentials_belong_to_redis(url: str) -> None:
    with pytest.raises(loom.UsageError, match="are Redis's"):
        connect(url, credentials=lambda: ("user", "password"))


def test_what_is_no_url_is_refused_before_anything_is_opened() -> None:
    with pytest.raises(loom.UsageError, match="no URL"):
        connect("http://[::1")


async def test_an_outage_of_a_server_is_told_and_that_it_is_over() -> None:
    told: list[bool] = []
    async with scripted() as server:
        server.react = then_whole(server, [sized("503 Service Unavailable")] * 2)
        async with connect(server.url, on_outage=told.append) as client:
            assert [chunk.type async for chunk in client.run("run").chunks()][-1] == "complete"
    assert told == [True, False]

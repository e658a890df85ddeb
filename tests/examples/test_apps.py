"""The examples in other people's frameworks: each in its real server, over a real socket."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import httpx2
import pytest

import loom
from loom.model import limits
from loom.wire.json import decode
from loom.wire.sse import Decoder, Event

EXAMPLES = Path(__file__).parents[2] / "examples"
ADA = {"Authorization": "Bearer for-ada"}
BOB = {"Authorization": "Bearer for-bob"}
STORY = "Once there was an owl whose story could be left and taken up again, at every word. "

UVICORN = ["uvicorn", "--fd", "{fd}"]
GUNICORN = ["gunicorn", "--bind", "fd://{fd}", "--workers", "2", "--threads", "8"]
SERVERS = {
    "fastapi_app:api": UVICORN,
    "starlette_app:app": UVICORN,
    "flask_app:app": GUNICORN,
    "django_app:application": GUNICORN,
}


class App:
    """An example that is served, and the store behind it."""

    def __init__(self, url: str, store: str) -> None:
        self.url = url
        self.store = store
        self.http = httpx2.Client(base_url=url, headers=ADA, timeout=20, trust_env=False)

    def begin(self) -> str:
        started = self.http.post("/stories", params={"about": "an owl"})
        assert started.status_code == 201, started.text
        where: str = started.json()["events"]
        return where


@pytest.fixture(scope="module", params=list(SERVERS))
def app(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    with running(request.param, tmp_path_factory.mktemp("stories")) as (app, _):
        yield app


@contextmanager
def running(target: str, folder: Path, *options: str) -> Iterator[tuple[App, subprocess.Popen[bytes]]]:
    store = f"sqlite:///{folder / 'stories.db'}"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        app = App(f"http://127.0.0.1:{listener.getsockname()[1]}", store)
        with app.http, process(target, listener, store, folder / "log", *options) as server:
            yield app, server


@contextmanager
def process(
    target: str, listener: socket.socket, store: str, log: Path, *options: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Who connects before the server is there waits in the socket's queue. The server ends in order when told to."""
    command = [part.format(fd=listener.fileno()) for part in SERVERS[target]]
    with log.open("w") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", *command, *options, target],
            cwd=EXAMPLES,
            env={**os.environ, "STORIES": store, "PYTHONDONTWRITEBYTECODE": "1"},
            pass_fds=[listener.fileno()],
            stdout=output,
            stderr=output,
        )
        try:
            yield server
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(30)
    said = log.read_text()
    assert "Traceback" not in said, said
    assert "rror" not in said, said


def words_of(events: list[Event]) -> str:
    return "".join(decode(event.data)["data"] for event in events if event.type == "data")


def read(response: httpx2.Response) -> Iterator[Event]:
    decoder = Decoder()
    for piece in response.iter_raw():
        yield from decoder.feed(piece)


def test_its_own_login_guards_every_route(app: App) -> None:
    where = app.begin()
    for method, path in (("POST", "/stories?about=x"), ("GET", where), ("GET", "/whispers?about=x")):
        assert app.http.request(method, path, headers={"Authorization": "Bearer nobody"}).status_code == 401
    assert app.http.get(where, headers=BOB).status_code == 404
    reply = app.http.get("/stories/ada.none/events")
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "not_found")


def test_each_word_arrives_before_the_next_is_said(app: App) -> None:
    """Nothing is held back on the way: the run is one of ours, which speaks again when its last word was read. The
    wait ends before a heartbeat, which would push out what is held."""
    run = f"ada.{uuid.uuid4().hex}"
    with loom.connect_sync(app.store) as client, client.publisher(run) as publisher:
        with app.http.stream("GET", f"/stories/{run}/events", timeout=limits.HEARTBEAT - 3) as response:
            assert response.headers["content-type"] == "text/event-stream"
            assert "content-encoding" not in response.headers
            events = read(response)
            assert next(events).type == "start"
            for word in STORY.split()[:5]:
                publisher.publish(word)
                assert words_of([next(events)]) == word
        publisher.complete()


def test_a_reader_that_left_comes_back(app: App) -> None:
    where = app.begin()
    with app.http.stream("GET", where) as response:
        before = list(islice(read(response), 8))
    with app.http.stream("GET", where, headers={"Last-Event-ID": before[-1].id}) as response:
        after = list(read(response))
    assert words_of(before + after) == STORY
    assert [event.type for event in before + after if event.type != "data"] == ["start", "complete"]
    assert app.http.get(where, headers={"Last-Event-ID": after[-1].id}).status_code == 204
    reply = app.http.get(where, headers={"Last-Event-ID": "7-1"})
    assert (reply.status_code, reply.json()["error"]["code"]) == (410, "cursor_expired")


def test_leaving_a_whisper_ends_it(app: App) -> None:
    with app.http.stream("GET", "/whispers", params={"about": "a secret " * 100}) as response:
        event = next(read(response))
    run = event.id.rpartition(":")[0]
    with loom.connect_sync(app.store) as client:
        assert client.run(run).wait(20).state == "cancelled"
    assert app.http.get("/whispers?about=x", headers={"Last-Event-ID": event.id}).status_code == 204


def test_asking_for_the_head_or_the_options_starts_nothing(app: App) -> None:
    where = app.begin()
    with loom.connect_sync(app.store) as client:
        before = len(client.runs(limit=1000))
        for method in ("HEAD", "OPTIONS"):
            for path in (where, "/whispers?about=x"):
                reply = app.http.request(method, path)
                if method == "HEAD" and reply.status_code != 405:  # FastAPI has no HEAD but where one is declared
                    assert (reply.status_code, reply.headers["content-type"]) == (200, "text/event-stream")
                assert b"event:" not in reply.content
                assert reply.status_code < 500
        assert len(client.runs(limit=1000)) == before


def test_many_readers_of_one_run_on_all_processes(app: App) -> None:
    where = app.begin()
    with loom.connect_sync(app.store) as client:
        client.run(where.split("/")[2]).wait(20)
    answers = [app.http.get(where).text for _ in range(6)]
    assert len({text.replace(":\n\n", "") for text in answers}) == 1


@pytest.mark.parametrize("target", SERVERS)
def test_told_to_stop_it_ends_what_is_followed_in_order_and_at_once(target: str, tmp_path: Path) -> None:
    """No server has an option set for that, and the story would go on for long."""
    with running(target, tmp_path) as (app, server):
        with app.http.stream("GET", "/whispers", params={"about": "a long, " * 200 + "story"}) as response:
            assert response.status_code == 200
            events = read(response)
            next(events)
            since = time.monotonic()
            server.terminate()
            assert "complete" not in {event.type for event in events}
        server.wait(30)
        assert time.monotonic() - since < 15, "less than gunicorn's patience"


@pytest.mark.parametrize("target", ["flask_app:app", "django_app:application"])
def test_readers_outlive_workers_that_are_replaced(target: str, tmp_path: Path) -> None:
    """A worker that has answered enough counts as stopping before it answers its last request."""
    with running(target, tmp_path, "--max-requests", "2") as (app, _):
        where = app.begin()
        with loom.connect_sync(app.store) as client:
            client.run(where.split("/")[2]).wait(20)
        events: list[Event] = []
        while not events or events[-1].type != "complete":
            last = {"Last-Event-ID": events[-1].id} if events else {}
            with httpx2.stream("GET", f"{app.url}{where}", headers={**ADA, **last}, trust_env=False) as response:
                assert response.status_code == 200
                events += read(response)
        assert words_of(events) == STORY


@pytest.mark.parametrize("app", ["fastapi_app:api", "starlette_app:app"], indirect=True)
def test_the_mounted_server_has_keys_of_its_own(app: App) -> None:
    app.begin()
    assert app.http.get("/loom/runs").status_code == 401
    key = {"Authorization": "Bearer for-operators"}
    assert app.http.get("/loom/runs", headers=key).json()["runs"]
    assert app.http.get("/loom/openapi.json", headers=key).json()["servers"] == [{"url": "/loom"}]
    with loom.connect_sync(f"{app.url}/loom", api_key="for-operators") as client:
        assert client.execute("tell", "an owl") == STORY

"""Event bytes for code that blocks, under a real WSGI server with threads; and a client for each process that forks."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from socketserver import ThreadingMixIn
from types import SimpleNamespace
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import httpx2
import pytest

import loom
from loom.blocking import SyncClient
from loom.model.errors import HandleClosed, UsageError
from loom.wire.json import decode
from loom.wire.sse import HEARTBEAT, Decoder, Event
from tests.clients.places import PLACES, ConnectedSync, connected_sync, url_of
from tests.echo import Echo

TIMEOUT = 20.0


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> ConnectedSync:
    return connected_sync(request.param, tmp_path, url_of(request, tmp_path))


def events_of(pieces: Iterable[bytes]) -> list[Event]:
    decoder = Decoder()
    return [event for piece in pieces for event in decoder.feed(piece)]


def values_of(events: list[Event]) -> list[Any]:
    return [decode(event.data)["data"] for event in events if event.type == "data"]


def test_a_run_as_bytes(place: ConnectedSync) -> None:
    echo = Echo(threading.Event())
    with place(echo.app) as client:
        run = client.start("echo")
        for index in range(3):
            run.send("say", index)
        run.send("stop")
        run.wait(TIMEOUT)
        answer = loom.sse_events(run)
        assert answer.status == 200
        assert answer.headers == {
            "content-type": "text/event-stream",
            "cache-control": "no-cache, no-transform",
            "x-accel-buffering": "no",
            "x-content-type-options": "nosniff",
        }
        pieces = list(answer)
        assert pieces[0] == HEARTBEAT, "so that the server sends the head"
        events = events_of(pieces)
        assert [event.type for event in events] == ["start", "data", "data", "data", "complete"]
        assert list(answer) == []
        for index, event in enumerate(events[:-1], 1):
            for resumed in (loom.sse_events(run, event.id), loom.sse_events(run, after=event.id)):
                with closing(resumed):
                    assert events_of(resumed) == events[index:]
        last = loom.sse_events(run, events[-1].id)
        assert (last.status, list(last)) == (204, [])
        assert [event.type for event in events_of(loom.sse_events(run, named=False))] == ["message"] * 5


def test_what_is_no_stream_is_json_with_its_status(place: ConnectedSync) -> None:
    echo = Echo(threading.Event())
    with place(echo.app) as client:
        run = client.start("echo")
        for answer, status, code in (
            (loom.sse_events(client.run("none")), 404, "not_found"),
            (loom.sse_events(run, "7-1"), 410, "cursor_expired"),
            (loom.sse_events(run, "\u2028"), 400, "usage"),
            (loom.sse_events(client.stream("echo", {"unknown": 1})), 422, "invalid_input"),
        ):
            body = b"".join(answer)
            assert (answer.status, decode(body)["error"]["code"]) == (status, code)
            assert answer.headers["content-type"] == "application/json"
            assert answer.headers["content-length"] == str(len(body))
            answer.close()
        run.send("stop")


def test_each_event_comes_before_the_next_is_said(place: ConnectedSync) -> None:
    echo = Echo(threading.Event())
    with place(echo.app) as client:
        run = client.start("echo")
        decoder = Decoder()
        with closing(loom.sse_events(run)) as answer:
            for index in range(20):
                run.send("say", index)
                while not values_of(events := decoder.feed(next(answer))):
                    pass
                assert values_of(events) == [index]
        run.send("say", "it goes on")
        run.send("stop")
        assert run.result(TIMEOUT)[-1] == "it goes on"


def test_closing_cancels_an_owned_run(place: ConnectedSync) -> None:
    echo = Echo(threading.Event())
    with place(echo.app) as client:
        answer = loom.sse_events(client.stream("echo"))
        while not (events := events_of([next(answer)])):
            pass
        run = client.run(events[0].id.rpartition(":")[0])
        answer.close()
        answer.close()
        assert list(answer) == []
        assert run.wait(TIMEOUT).state == "cancelled"
        assert echo.gone.wait(TIMEOUT)
        assert loom.sse_events(client.stream("echo"), events[0].id).status == 204
        assert len(client.runs()) == 1


class Asking:
    """A request, as far as it is read."""

    def __init__(self, method: str | None = "GET", **headers: str) -> None:
        self.method = method
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def test_head_starts_nothing(place: ConnectedSync) -> None:
    echo = Echo(threading.Event())
    with place(echo.app) as client:
        answer = loom.sse_events(client.stream("echo"), Asking("HEAD"))
        assert (answer.status, list(answer), client.runs()) == (200, [], [])
        with closing(loom.sse_events(client.stream("echo"), Asking("GET"))) as began:
            assert (began.status, began.headers) == (200, answer.headers)
            assert next(began) == HEARTBEAT
        (head,) = client.runs()
        followed = loom.sse_events(client.run(head.meta.run), Asking("HEAD"))
        assert (followed.status, followed.headers, list(followed)) == (200, answer.headers, [])
        none = loom.sse_events(client.run("none"), Asking("HEAD"))
        assert (none.status, list(none)) == (404, [])


def test_what_is_read_of_a_request(place: ConnectedSync) -> None:
    echo = Echo(threading.Event())
    with place(echo.app) as client:
        run = client.start("echo")
        run.send("stop")
        run.wait(TIMEOUT)
        events = events_of(loom.sse_events(run, Asking(None)))
        assert [event.type for event in events] == ["start", "complete"]
        assert events_of(loom.sse_events(run, Asking(last_event_id=events[0].id))) == events[1:]
        refused = loom.sse_events(client.stream("echo"), Asking(accept="application/json"))
        assert (refused.status, decode(b"".join(refused))["error"]["code"]) == (406, "not_acceptable")
        assert len(client.runs()) == 1


def test_what_is_dropped_without_being_closed_is_closed(place: ConnectedSync) -> None:
    """As servers do whose app fails between the view and the first byte."""
    echo = Echo(threading.Event())
    with place(echo.app) as client:
        for begun in (False, True):
            answer = loom.sse_events(client.stream("echo"))
            while begun and not events_of([next(answer)]):
                pass
            del answer
            assert client.run(client.runs()[0].meta.run).wait(TIMEOUT).state == "cancelled"
        answer = loom.sse_events(client.stream("echo"))
    del answer  # when the client is closed, nobody is told


def test_closing_what_was_never_iterated() -> None:
    echo = Echo(threading.Event())
    with loom.connect_sync("memory://", app=echo.app, worker=True, drain=0) as client:
        answer = loom.sse_events(client.stream("echo"))
        (head,) = client.runs()
        answer.close()
        assert client.run(head.meta.run).wait(TIMEOUT).state == "cancelled"


def test_a_client_that_is_closed_ends_what_is_read_in_other_threads() -> None:
    echo = Echo(threading.Event())
    begun = threading.Event()
    pieces: list[bytes] = []
    with loom.connect_sync("memory://", app=echo.app, worker=True, drain=0) as client:
        answer = loom.sse_events(client.start("echo"))

        def read() -> None:
            for piece in answer:
                pieces.append(piece)
                if b"event: start" in piece:
                    begun.set()
            answer.close()

        reader = threading.Thread(target=read)
        reader.start()
        assert begun.wait(TIMEOUT)
    reader.join(TIMEOUT)
    assert not reader.is_alive()
    assert [event.type for event in events_of(pieces)] == ["start"]


# --- under a server --------------------------------------------------------------------------------------------------


class Threaded(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class Quiet(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serve(client: SyncClient, **options: Any) -> Iterator[str]:
    """Every path is a run's id."""

    def app(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        answer = loom.sse_events(client.run(environ["PATH_INFO"][1:]), environ.get("HTTP_LAST_EVENT_ID"), **options)
        start(f"{answer.status} -", list(answer.headers.items()))
        return answer

    with make_server("127.0.0.1", 0, app, Threaded, Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_under_a_server_in_time_from_several_threads_and_resumed() -> None:
    echo = Echo(threading.Event())
    with loom.connect_sync("memory://", app=echo.app, worker=True, drain=0) as client, serve(client) as url:
        run = client.start("echo")
        with httpx2.stream("GET", f"{url}/{run.id}") as one, httpx2.stream("GET", f"{url}/{run.id}") as other:
            readers = [Reader(one), Reader(other)]
            for index in range(5):
                run.send("say", index)
                assert [reader.value() for reader in readers] == [index, index]
            last = readers[0].last
            run.send("say", "unseen")
            run.send("stop")
        with httpx2.stream("GET", f"{url}/{run.id}", headers={"Last-Event-ID": last}) as again:
            assert [event.type for event in events_of(again.iter_raw())] == ["data", "complete"]
        assert httpx2.get(f"{url}/none").status_code == 404


class Reader:
    def __init__(self, response: httpx2.Response) -> None:
        self._pieces = response.iter_raw()
        self._decoder = Decoder()
        self._events: list[Event] = []
        self.last = ""

    def value(self) -> Any:
        while not self._events:
            self._events = [event for event in self._decoder.feed(next(self._pieces)) if event.type == "data"]
        event = self._events.pop(0)
        self.last = event.id
        return decode(event.data)["data"]


def test_a_reader_that_leaves_is_noticed_by_its_heartbeats() -> None:
    """Only the viewer ends: the run goes on."""
    echo = Echo(threading.Event())
    with loom.connect_sync("memory://", app=echo.app, worker=True, drain=0) as client:
        closed = threading.Event()

        class Noting:
            def __init__(self, answer: Any) -> None:
                self.answer = answer

            def __iter__(self) -> Iterator[bytes]:
                return iter(self.answer)

            def close(self) -> None:
                self.answer.close()
                closed.set()

        def app(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
            answer = loom.sse_events(client.run(environ["PATH_INFO"][1:]), heartbeat=0.02)
            start("200 OK", list(answer.headers.items()))
            return Noting(answer)

        run = client.start("echo")
        with make_server("127.0.0.1", 0, app, Threaded, Quiet) as server:
            thread = threading.Thread(target=server.handle_request)
            thread.start()
            with httpx2.stream("GET", f"http://127.0.0.1:{server.server_port}/{run.id}") as response:
                next(response.iter_raw())
            assert closed.wait(TIMEOUT)
            thread.join(TIMEOUT)
        run.send("stop")
        assert run.wait(TIMEOUT).state == "completed"


# --- a client for each process ---------------------------------------------------------------------------------------


@pytest.fixture
def at_exit(monkeypatch: pytest.MonkeyPatch) -> Iterator[ExitStack]:
    """Closing it does what the process would do at its exit, with the clients that connect meanwhile."""
    with ExitStack() as stack:
        monkeypatch.setattr("loom.wsgi.atexit", SimpleNamespace(register=stack.callback))
        yield stack


def test_one_client_a_process_whoever_asks_first(tmp_path: Path, at_exit: ExitStack) -> None:
    clients = loom.per_process(f"sqlite:///{tmp_path / 'runs.db'}")
    found: list[SyncClient] = []
    threads = [threading.Thread(target=lambda: found.append(clients())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
    assert len(found) == 8
    assert len(set(map(id, found))) == 1
    assert clients() is found[0]
    assert clients().runs() == []
    at_exit.close()
    with pytest.raises(HandleClosed):
        clients().runs()


def test_a_wrong_url_is_told_at_once() -> None:
    with pytest.raises(UsageError, match="no store"):
        loom.per_process("nowhere")


def test_forked_processes_have_a_client_each(tmp_path: Path) -> None:
    script = tmp_path / "forks.py"
    script.write_text(FORKS)
    command = [sys.executable, "-W", "error", str(script), str(tmp_path / "runs.db")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert done.stdout.splitlines() == [
        "first: ['first']",
        "second: ['first', 'second']",
        "parent: ['first', 'second', 'parent']",
        "late: this process was forked after its parent had connected to the store",
    ]


def test_forked_while_another_thread_connects(tmp_path: Path) -> None:
    """The child is refused as well, and does not wait for a thread that it has not."""
    script = tmp_path / "forks.py"
    script.write_text(FORKS_MEANWHILE)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["refused", "connected"]


FORKS_MEANWHILE = """
import contextlib, os, signal, threading
import loom

connecting, go_on = threading.Event(), threading.Event()

@contextlib.asynccontextmanager
async def slow(app):
    connecting.set()
    go_on.wait()
    yield

clients = loom.per_process("memory://", app=loom.App(lifespan=slow), worker=True, drain=0)
thread = threading.Thread(target=clients)
thread.start()
connecting.wait()
if not os.fork():
    signal.alarm(20)
    try:
        clients()
    except loom.UsageError:
        print("refused", flush=True)
        os._exit(0)
assert os.wait()[1] == 0
go_on.set()
thread.join()
clients()
print("connected", flush=True)
"""

FORKS = """
import os, sys, warnings
from collections.abc import Iterator
import loom

warnings.filterwarnings("ignore", message=".*multi-threaded.*")   # Python 3.12 on forking with threads

app = loom.App()

@app.actor
def say(word: str) -> Iterator[str]:
    yield word

clients = loom.per_process(f"sqlite:///{sys.argv[1]}", app=app, worker=True, drain=0)

def speak(word):
    client = clients()
    assert clients() is client
    client.execute(say, word)
    said = [client.run(head.meta.run).result(20) for head in reversed(client.runs())]
    print(f"{word}: {said}", flush=True)

def refused(word):
    try:
        clients()
    except loom.UsageError as error:
        print(f"{word}: {error.message.partition(':')[0]}", flush=True)

def forked(work, word):
    if not os.fork():
        work(word)
        sys.exit()
    assert os.wait()[1] == 0

forked(speak, "first")
forked(speak, "second")
speak("parent")
forked(refused, "late")
"""

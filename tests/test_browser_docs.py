"""The snippets of docs/browser.md, as they stand there, in a real Chromium against a server that is killed."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tests.chromium import chromium, needs_chromium
from tests.cli.kit import Loom, Running
from tests.cli.test_serve import port_of, request

pytestmark = needs_chromium

DOC = (Path(__file__).parents[1] / "docs" / "browser.md").read_text("utf-8")
FOLLOW, NAMED = re.findall(r"```js\n(.*?)```", DOC, re.DOTALL)
CALLS = ("chunk", "done", "failed", "waiting", "gone", "refusedByServer")
RECORD = "".join(f"const {name} = (...given) => calls.push([{name!r}, ...given]);" for name in CALLS)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


class Server:
    """`loom serve`, again on its port when it was killed."""

    def __init__(self, state: Path) -> None:
        self.loom = Loom(state)
        self.port = 0
        self.running: Running | None = None

    def start(self) -> None:
        store = f"sqlite:///{self.loom.state}/runs.db"
        self.running = self.loom.start("serve", "app:app", "--store", store, "--port", str(self.port), "--lease", "1s")
        self.port = port_of(self.running)

    def kill(self) -> None:
        assert self.running is not None
        self.running.signal(signal.SIGKILL)
        self.running.wait()

    def close(self) -> None:
        if self.running is not None:
            self.running.close()

    def begin(self, actor: str, input: Any = None) -> None:
        assert request(self.port, "POST", "/runs", {"actor": actor, "input": input, "id": "r"})[0] == 201


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    with ExitStack() as stack:
        stack.callback(server.close)
        server.start()
        yield server


@pytest.fixture
def page(browser: Browser, server: Server) -> Iterator[Page]:
    page = tab(browser, server)
    yield page
    page.close()


def tab(browser: Browser, server: Server) -> Page:
    page = browser.new_page()
    page.goto(f"http://127.0.0.1:{server.port}/healthz")
    page.evaluate("globalThis.calls = []")
    return page


def follow(page: Page, run: str = "r", after: str = "") -> None:
    handlers = "{ chunk, done, failed, waiting, gone }"
    page.evaluate(f"() => {{ {FOLLOW}; {RECORD}; globalThis.leave = follow({run!r}, {handlers}, {after!r}) }}")


def follow_named(page: Page) -> None:
    chunks = 'source.addEventListener("data", event => chunk(JSON.parse(event.data), event.lastEventId))'
    page.evaluate(f'() => {{ {RECORD}; const source = new EventSource("/runs/r/events"); {chunks}; {NAMED} }}')


def until(page: Page, name: str, count: int = 1) -> list[Any]:
    """What the page was told by then, once it was told this so many times."""
    page.wait_for_function("([name, n]) => calls.filter(call => call[0] === name).length >= n", arg=[name, count])
    calls: list[Any] = json.loads(page.evaluate("JSON.stringify(calls)"))
    return calls


def of(calls: list[Any], name: str) -> list[Any]:
    return [call[1:] for call in calls if call[0] == name]


def test_a_killed_server_is_waited_for_and_its_run_goes_on(page: Page, server: Server) -> None:
    server.begin("count", 1500)
    follow(page)
    until(page, "chunk", 50)
    server.kill()
    until(page, "waiting")
    server.start()
    calls = until(page, "done")
    assert [said["data"]["i"] for said, _ in of(calls, "chunk") if said["type"] == "data"] == list(range(1500))
    assert [said["data"]["attempt"] for said, _ in of(calls, "chunk") if said["type"] == "start"] == [1, 2]
    assert not of(calls, "failed")
    assert not of(calls, "gone")


def test_a_runs_error_is_told_from_a_lost_connection(browser: Browser, page: Page, server: Server) -> None:
    """By both snippets."""
    named = tab(browser, server)
    server.begin("pieces", ["one"])
    follow(page)
    follow_named(named)
    until(page, "chunk", 2)
    until(named, "chunk")
    server.kill()
    for one in (page, named):
        assert not of(until(one, "waiting"), "failed")
    server.start()
    for one in (page, named):
        calls = until(one, "failed")
        ((error,),) = of(calls, "failed")
        assert error["code"] == "run_lost"
        assert not of(calls, "gone")
        assert not of(calls, "refusedByServer")
    named.close()


def test_a_run_that_fails_is_told_as_its_end(page: Page, server: Server) -> None:
    server.begin("fails")
    follow(page)
    calls = until(page, "failed")
    assert of(calls, "failed")[0][0]["code"] == "run_failed"
    assert not of(calls, "waiting")


def test_what_is_not_there_is_not_asked_for_for_ever(page: Page, server: Server) -> None:
    follow(page, "nowhere")
    assert of(until(page, "gone"), "gone")[0][0]["code"] == "not_found"
    server.begin("echo", "a b")
    follow(page, "r", "999999999-1")
    assert of(until(page, "gone", 2), "gone")[1][0]["code"] == "cursor_expired"


def test_what_is_refused_for_a_while_is_asked_for_again(page: Page, server: Server) -> None:
    """A 503, as of a store that is out of reach, ends an EventSource; the snippet goes on behind its cursor."""
    refused: list[str] = []

    def refuse(route: Any) -> None:
        refused.append(route.request.url)
        body = json.dumps({"error": {"code": "unavailable", "message": "away", "retryable": True, "details": {}}})
        route.fulfill(status=503, content_type="application/json", body=body)

    server.begin("count", 10)
    page.route(re.compile("/runs/r/"), refuse, times=2)
    follow(page)
    calls = until(page, "done")
    assert len(refused) == 2
    assert of(calls, "waiting")
    assert [said["data"]["i"] for said, _ in of(calls, "chunk") if said["type"] == "data"] == list(range(10))


def test_a_stream_that_ends_at_once_is_opened_again_by_the_browser(page: Page, server: Server) -> None:
    """As a server does that is just stopping: nothing of ours is needed to go on elsewhere."""
    server.begin("count", 10)
    asked: list[str] = []

    def end(route: Any) -> None:
        asked.append(route.request.url)
        route.fulfill(status=200, content_type="text/event-stream", body="")

    page.route("**/events", end, times=1)
    follow_named(page)
    calls = until(page, "chunk", 10)
    assert len(asked) == 1
    assert of(calls, "waiting")
    assert not of(calls, "refusedByServer")


def test_who_leaves_while_it_is_refused_has_left(page: Page, server: Server) -> None:
    server.begin("count", 10)
    page.clock.install()
    page.route("**/events?**", lambda route: route.fulfill(status=503, body="{}"), times=1)
    follow(page)
    until(page, "waiting")
    page.evaluate("leave()")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.clock.run_for(10_000)
    page.evaluate("fetch('/healthz')")
    assert [url.rpartition("/")[2] for url in asked if "/chunks" not in url] == ["healthz"]


def test_a_run_whose_end_is_known_is_not_asked_for_again(page: Page, server: Server) -> None:
    server.begin("count", 3)
    follow(page)
    until(page, "done")
    last = json.loads(request(server.port, "GET", "/runs/r")[1])["latest"]
    follow(page, "r", last)
    assert of(until(page, "gone"), "gone")[0][0]["code"] == "ended"


def test_a_native_source_that_nobody_closes_ends_with_204(page: Page, server: Server) -> None:
    server.begin("count", 3)
    page.evaluate('globalThis.source = new EventSource("/runs/r/events?named=0")')
    page.wait_for_function("source.readyState === EventSource.CLOSED")

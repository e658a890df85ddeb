"""The description is true: schemathesis asks the real server everything it says, and finds no fault."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import httpx2
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import negative_data_rejection, positive_data_acceptance

import loom
from loom.app import App
from loom.engine.follow.transport import StoreTransport
from loom.engine.run.worker import Worker
from loom.server.app import Times, create_app
from loom.server.serve import serving
from loom.stores.memory import MemoryStore

OPERATIONS = [
    "startRun", "listRuns", "showRun", "followRun", "readRun", "sendToRun", "cancelRun", "retryRun", "renewRun",
    "markRun", "listActors", "stream", "postStream", "streamAlias", "postStreamAlias",
    "showQueue", "listWorkers", "drainWorker",
    "createChatCompletion", "chat", "listModels", "showModel", "index", "alive", "ready", "openapi",
]  # fmt: skip


def small() -> App:
    app = App()

    @app.actor("echo")
    async def echo(value: Any = None) -> AsyncIterator[Any]:
        yield value

    @app.actor("chat")
    async def chat(messages: list[loom.ChatMessage]) -> AsyncIterator[str]:
        yield "hi"

    return app


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The real server with a worker, in a thread of its own."""
    urls: list[str] = []
    ready, done = Event(), Event()

    async def main() -> None:
        app = small()
        async with contextlib.AsyncExitStack() as stack:
            store = await stack.enter_async_context(MemoryStore())
            transport = StoreTransport(store, app.registry)
            stack.push_async_callback(transport.aclose)
            await stack.enter_async_context(Worker(store, app.registry))
            gateway = create_app(transport, times=Times(long_poll=0.02))
            address = await stack.enter_async_context(serving(gateway, port=0))
            urls.append(address.url)
            ready.set()
            await asyncio.get_running_loop().run_in_executor(None, done.wait)

    with ThreadPoolExecutor(1) as pool:
        served = pool.submit(asyncio.run, main())
        try:
            assert ready.wait(10), served.exception(0)
            yield urls[0]
        finally:
            done.set()
            served.result(30)


@pytest.fixture(scope="module")
def document(url: str) -> Any:
    return httpx2.get(f"{url}/openapi.json").json()


@pytest.fixture(scope="module")
def run(url: str) -> str:
    """A run that has ended."""
    run: str = httpx2.post(f"{url}/runs", json={"actor": "echo", "input": 1}).json()["id"]
    assert "complete" in httpx2.get(f"{url}/runs/{run}/events").text
    return run


def test_every_operation_is_described(document: Any) -> None:
    found = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
    assert found == OPERATIONS


def test_every_operation_is_in_the_reference(document: Any) -> None:
    reference = (Path(__file__).parents[3] / "docs" / "http.md").read_text()
    offered = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert set(re.findall(r"`(GET|POST) (/[^`]*)`(?=.*\|.*\|)", reference)) == offered


def test_what_needs_no_key_says_so(document: Any) -> None:
    open_to_all = [path for path, methods in document["paths"].items() if methods.get("get", {}).get("security") == []]
    assert open_to_all == ["/healthz", "/readyz"]


NOTHING_TO_GET_WRONG = {"listActors", "listWorkers", "listModels", "showModel", "index", "alive", "ready", "openapi"}
MODES = schemathesis.GenerationMode
CASES = [(name, MODES.POSITIVE) for name in OPERATIONS]
CASES += [(name, MODES.NEGATIVE) for name in OPERATIONS if name not in NOTHING_TO_GET_WRONG]


@pytest.mark.parametrize(("name", "mode"), CASES)
def test_no_fault_is_found(url: str, run: str, name: str, mode: schemathesis.GenerationMode) -> None:
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    operation = schema.find_operation_by_id(name)

    @settings(
        max_examples=40,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    @given(case=operation.as_strategy(generation_mode=mode), known=st.booleans())
    def ask(case: Any, known: bool) -> None:
        excluded: list[Any] = [positive_data_acceptance]  # an id and an Idempotency-Key are each valid, not both
        if known and case.path_parameters:
            there = {"id": run, "name": "echo", "reader": "me", "provider": "chat", "model": "chat"}
            case.path_parameters = {key: there[key] for key in case.path_parameters}
            excluded.append(negative_data_rejection)  # it may have been the path that was wrong
        if isinstance(case.body, dict) and "queue" in case.body:
            case.body["queue"] = "default"  # which the worker serves
        case.validate_response(case.call(session=session, timeout=10), excluded_checks=excluded)

    with requests.Session() as session:
        ask()

"""Other people's readers of events and lines, over real sockets: the largest chunk fits, and no text ends a line."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any
from urllib.parse import quote

import httpx
import httpx2
import pytest
import requests

import loom
from loom.engine.run.writer import encode_chunk
from loom.model import limits
from loom.model.chunk import Chunk

from .harness import Rig, rig

pytestmark = pytest.mark.anyio

ENDS = "a\u2028b\u2029c\x85d\x0b\x0c\x1c\x1d\x1e\u2019é©e"
"""Everywhere `str.splitlines` ends a line, and what shares bytes with it."""

LONGEST_MODEL = "\x01" * limits.MODEL_NAME
KINDS: dict[str, Callable[[int], Any]] = {
    "text": lambda count: "x" * count,
    "quotes": lambda count: '"' * count,
    "escapes": lambda count: "\u2028" * count,
    "values": lambda count: [""] * count,
    "calls": lambda count: loom.ToolCallPart("id", "name", "\\" * count),
    "parts": lambda count: loom.TextPart("\x85" * count),
}


def large(kind: str) -> Any:
    """The largest value of its kind that a chunk can hold, but for some bytes."""
    make = KINDS[kind]
    one, two = (len(encode_chunk(Chunk("data", make(count), time=1700000000.1234567))) for count in (1, 2))
    return make((limits.CHUNK_BYTES - one - 10) // (two - one))


@pytest.fixture(scope="module")
def app() -> loom.App:
    app = loom.App(default_actor="large")

    @app.actor("large")
    async def large_values(prompt: str) -> AsyncIterator[Any]:
        yield large(prompt)

    @app.actor("result")
    async def large_result(prompt: str) -> Any:
        return large(prompt)

    @app.actor("twice")
    async def two_calls(prompt: str) -> AsyncIterator[Any]:
        yield large("calls")
        yield large("calls")

    @app.actor("ends")
    async def ends(prompt: str) -> AsyncIterator[Any]:
        yield prompt
        yield {prompt: [prompt]}
        yield loom.Chunk(type="log", data=prompt)
        raise ValueError(prompt)

    return app


@pytest.fixture
async def server(app: loom.App) -> AsyncIterator[Rig]:
    async with rig(app.registry, worker=True, default_actor="large") as server:
        yield server


async def events_of(server: Rig, method: str, path: str, body: Any) -> list[httpx2.ServerSentEvent]:
    """As httpx2's own reader gives them, at its own limit."""
    async with (
        httpx2.AsyncClient(base_url=server.address.url) as client,
        client.stream(method, path, json=body) as response,
    ):
        assert response.status_code == 200
        return [event async for event in httpx2.EventSource(response)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("actor", ["large", "result"])
async def test_the_largest_chunk_fits_in_other_peoples_events(server: Rig, actor: str, kind: str) -> None:
    chunks = await events_of(server, "POST", f"/actors/{actor}/stream", {"input": kind})
    assert [chunk.event for chunk in chunks if chunk.event != "message"][-1] == "complete"
    there = next(chunk for chunk in chunks if chunk.event == {"large": "data", "result": "complete"}[actor])
    assert limits.CHUNK_BYTES - 100 < len(there.data.encode()) <= limits.CHUNK_BYTES


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("actor", ["large", "result", "twice"])
async def test_the_largest_chunk_fits_in_the_events_of_a_completion(server: Rig, actor: str, kind: str) -> None:
    model = LONGEST_MODEL if actor == "large" else actor
    body = {"model": model, "messages": [{"role": "user", "content": kind}], "stream": True}
    *parts, done = await events_of(server, "POST", "/v1/chat/completions", body)
    assert done.data == "[DONE]"
    deltas = [json.loads(part.data)["choices"][0]["delta"] for part in parts]
    calls: dict[int, str] = {}
    for call in (call for delta in deltas for call in delta.get("tool_calls", ())):
        calls[call["index"]] = calls.get(call["index"], "") + call["function"]["arguments"]
    text = "".join(delta.get("content") or "" for delta in deltas)
    if actor == "twice" or (actor, kind) == ("large", "calls"):
        assert list(calls.values()) == [large("calls").arguments] * (2 if actor == "twice" else 1)
    elif kind == "parts" and actor == "large":
        assert text == large(kind).text
    elif isinstance(large(kind), str):
        assert text == large(kind)
    else:
        assert json.loads(text) == json.loads(loom_json(large(kind)))


def loom_json(value: Any) -> bytes:
    return encode_chunk(Chunk("data", value)).removeprefix(b'{"type":"data","data":').removesuffix(b"}")


# --- readers that end lines where Unicode does ----------------------------------------------------------------------


def with_httpx(url: str) -> list[str]:
    with httpx.stream("GET", url) as response:
        return list(response.iter_lines())


def with_httpx2(url: str) -> list[str]:
    with httpx2.stream("GET", url) as response:
        return list(response.iter_lines())


def with_requests(url: str) -> list[str]:
    with requests.get(url, stream=True, timeout=10) as response:
        response.encoding = "utf-8"
        return [str(line) for line in response.iter_lines(decode_unicode=True)]


def with_splitlines(url: str) -> list[str]:
    return requests.get(url, timeout=10).content.decode().splitlines()


READERS = [with_httpx, with_httpx2, with_requests, with_splitlines]


def data_of(lines: list[str]) -> Iterator[Any]:
    return (json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: "))


@pytest.mark.parametrize("read", READERS)
async def test_no_text_ends_a_line_to_any_reader(server: Rig, read: Callable[[str], list[str]]) -> None:
    reply = await server.ask("POST", "/runs", {"actor": "ends", "input": ENDS, "id": "ends"})
    assert reply.status == 201

    async def read_lines(path: str) -> list[str]:
        return await asyncio.to_thread(read, server.address.url + path)

    start, text, value, log, error = data_of(await read_lines("/runs/ends/events"))
    assert (text["data"], value["data"], log["data"]) == (ENDS, {ENDS: [ENDS]}, ENDS)
    assert error["error"]["message"] == f"ValueError: {ENDS}"
    assert start["type"] == "start"
    for path in ("/runs/ends/chunks", "/runs/ends", "/runs"):
        (line,) = await read_lines(path)
        json.loads(line)
    (line,) = await read_lines(f"/runs/none{quote(ENDS)}")
    assert "error" in json.loads(line)


async def test_nor_in_a_completion(server: Rig) -> None:
    body = {"model": "ends", "messages": [{"role": "user", "content": ENDS}], "stream": True}
    lines = (await server.ask("POST", "/v1/chat/completions", body)).body.decode().splitlines()
    *said, error = data_of(lines)
    text = "".join(one["choices"][0]["delta"]["content"] for one in said)
    assert text.startswith(ENDS)
    assert error["error"]["message"] == f"ValueError: {ENDS}"

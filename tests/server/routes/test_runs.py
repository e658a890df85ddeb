"""The routes of runs: what they answer, and what becomes of wrong requests."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from loom.app import App
from loom.engine.declare.context import Context
from loom.model import limits
from loom.model.chunk import Chunk
from loom.model.errors import StoreFull
from loom.model.options import DECLARABLE
from tests.server.harness import Rig, ask_raw, rig

pytestmark = pytest.mark.anyio


def told() -> App:
    app = App()

    @app.actor("add")
    async def add(a: int, b: int = 0) -> int:
        return a + b

    @app.actor("ask")
    async def ask(ctx: Context) -> Any:
        return (await ctx.receive("answer")).data

    return app


async def result_of(r: Rig, run: str) -> Any:
    async with r.viewer(f"/runs/{run}/events") as viewer:
        await viewer.rest()
    return (await r.ask("GET", f"/runs/{run}")).json.get("result")


# --- starting --------------------------------------------------------------------------------------------------------


async def test_start() -> None:
    async with rig(told().registry, worker=True) as r:
        reply = await r.ask("POST", "/runs", {"actor": "add", "input": {"a": 1, "b": 2}})
        run = reply.json["id"]
        assert (reply.status, reply.header("location")) == (201, f"/runs/{run}")
        assert reply.json["actor"] == "add"
        assert await result_of(r, run) == 3
        shown = (await r.ask("GET", f"/runs/{run}")).json
        assert (shown["state"], shown["attempt"], shown["chunks"], shown["input"]) == (
            "completed",
            1,
            2,
            {"a": 1, "b": 2},
        )
        light = (await r.ask("GET", f"/runs/{run}?full=0")).json
        assert shown == light | {"input": {"a": 1, "b": 2}, "result": 3}
        assert not {"input", "result"} & set(light)


async def test_options_are_kept() -> None:
    options = {
        "id": "mine", "key": "k", "queue": "slow", "timeout": 5.5, "idle_timeout": 2.0, "ahead": 3, "owner_lease": 7.0,
        "priority": "high",
    }  # fmt: skip
    async with rig(told().registry) as r:
        reply = await r.ask("POST", "/runs", {"actor": "add", "input": {"a": 1}, **options})
        assert {name: reply.json[name] for name in options} == options
        assert reply.header("location") == "/runs/mine"


async def test_what_is_left_out_is_as_declared_and_null_lifts_it() -> None:
    declared: dict[str, Any] = {
        "queue": "jobs",
        "priority": "low",
        "timeout": 60,
        "idle_timeout": 5,
        "ahead": 3,
        "retention": 9,
        "labels": {"team": "a"},
    }
    app = App()

    @app.actor("careful", **declared)
    async def careful() -> None: ...

    lifted = {"queue": "default", "priority": "normal", "timeout": None, "idle_timeout": None, "ahead": None}
    async with rig(app.registry) as r:
        told = (await r.ask("POST", "/runs", {"actor": "careful"})).json
        assert {name: told[name] for name in DECLARABLE} == declared
        told = (await r.ask("POST", "/runs", {"actor": "careful", **lifted})).json
        assert {name: told[name] for name in DECLARABLE if name in told} | {"queue": "default"} == {
            "queue": "default", "retention": 9, "labels": {"team": "a"},
        }  # fmt: skip
        async with r.viewer("/actors/careful/stream?detach=1", method="POST", body=lifted) as viewer:
            run = (viewer.reply.header("location") or "").rpartition("/")[2]
        assert (await r.store.runs.get(run)).meta.timeout is None
    async with rig() as r:
        told = (await r.ask("POST", "/runs", {"actor": "careful", "queue": "jobs", "timeout": None})).json
        assert told["assumed"] == ["idle_timeout", "ahead", "priority", "retention", "labels"]


async def test_labels_parents_and_roots_are_shown_and_searched() -> None:
    async with rig(told().registry) as r:
        body = {"actor": "add", "input": {"a": 1}, "id": "mine", "labels": {"user": "42", "at": "12:30"}}
        assert (await r.ask("POST", "/runs", body)).json["labels"] == body["labels"]
        await r.begin("child", parent="mine", root="top", labels={"user": "42"})
        child = (await r.ask("GET", "/runs/child")).json
        assert (child["parent"], child["root"], child["labels"]) == ("mine", "top", {"user": "42"})
        for query, expected in (
            ("label=user:42", ["child", "mine"]),
            ("label=user%3A42&label=at:12:30", ["mine"]),
            ("label=user:42&state=running", ["child"]),
            ("label=user:7", []),
            ("parent=mine", ["child"]),
            ("root=top&label=user:42", ["child"]),
            ("parent=child", []),
        ):
            listed = (await r.ask("GET", f"/runs?{query}")).json["runs"]
            assert [run["id"] for run in listed] == expected, query


async def test_the_same_id_with_the_same_request_is_the_same_run() -> None:
    async with rig(told().registry) as r:
        bodies = [
            {"actor": "add", "id": "x", "input": {"a": 1, "b": 2}},
            {"input": {"b": 2, "a": 1}, "id": "x", "actor": "add"},
        ]
        first, second = [await r.ask("POST", "/runs", body) for body in bodies]
        assert (first.status, second.status) == (201, 201)
        assert first.json == second.json
        other = await r.ask("POST", "/runs", {"actor": "add", "id": "x", "input": {"a": 9}})
        assert (other.status, other.error["code"]) == (409, "conflict")


@pytest.mark.parametrize(("one", "other"), [("abc", "abc"), ("abc", '"abc"'), ('"a \\"b"', '"a \\"b"')])
async def test_an_idempotency_key_names_the_run(one: str, other: str) -> None:
    async with rig(told().registry) as r:
        body = {"actor": "add", "input": {"a": 1}}
        first = await r.ask("POST", "/runs", body, headers={"Idempotency-Key": one})
        again = await r.ask("POST", "/runs", body, headers={"Idempotency-Key": other})
        assert (first.status, again.status) == (201, 201)
        assert first.json == again.json
        assert first.json["id"].startswith("k-")
        differs = await r.ask("POST", "/runs", {"actor": "add", "input": {"a": 2}}, headers={"Idempotency-Key": one})
        assert (differs.status, differs.error["code"]) == (409, "conflict")
        assert len((await r.ask("GET", "/runs")).json["runs"]) == 1


async def test_many_at_once_with_one_key_start_one_run() -> None:
    async with rig(told().registry) as r:
        headers = {"Idempotency-Key": "once"}
        replies = await asyncio.gather(
            *(r.ask("POST", "/runs", {"actor": "add", "input": {"a": 1}}, headers=headers) for _ in range(20))
        )
        assert {reply.status for reply in replies} == {201}
        assert len({reply.json["id"] for reply in replies}) == 1


# --- listing and looking ---------------------------------------------------------------------------------------------


async def test_the_list_is_newest_first_in_pages() -> None:
    async with rig(told().registry) as r:
        for index in range(5):
            await r.ask("POST", "/runs", {"actor": "add", "input": {"a": index}, "id": f"r{index}"})
        seen, path = [], "/runs?limit=2"
        while True:
            page = (await r.ask("GET", path)).json
            seen.append([run["id"] for run in page["runs"]])
            assert not any("input" in run for run in page["runs"])
            if "next" not in page:
                break
            path = f"/runs?limit=2&before={page['next']}"
        assert seen == [["r4", "r3"], ["r2", "r1"], ["r0"]]


async def test_the_list_can_be_narrowed() -> None:
    async with rig(told().registry) as r:
        await r.begin("one", "add")
        await r.begin("two", "ask")
        await r.end("two")
        for query, expected in (
            ("", ["two", "one"]),
            ("?state=running", ["one"]),
            ("?state=completed", ["two"]),
            ("?state=lost", []),
            ("?actor=add", ["one"]),
            ("?actor=add&state=completed", []),
        ):
            assert [run["id"] for run in (await r.ask("GET", f"/runs{query}")).json["runs"]] == expected


async def test_chunks_page_by_page() -> None:
    async with rig() as r:
        cursors = [str(await r.begin())]
        cursors += [str(await r.say("r", Chunk("data", index))) for index in range(4)]
        cursors.append(str(await r.end()))
        seen: list[Any] = []
        page = {"cursor": "", "ended": False}
        while not page["ended"]:
            page = (await r.ask("GET", f"/runs/r/chunks?limit=4&after={page['cursor']}")).json
            assert page["cursor"] == page["chunks"][-1]["cursor"]
            seen += page["chunks"]
        assert [item["cursor"] for item in seen] == cursors
        assert [item["chunk"]["type"] for item in seen] == ["start", "data", "data", "data", "data", "complete"]
        past = (await r.ask("GET", f"/runs/r/chunks?after={cursors[-1]}")).json
        assert past == {"chunks": [], "cursor": cursors[-1], "caught_up": True, "ended": True}


async def test_a_page_of_a_run_that_has_said_nothing() -> None:
    async with rig(told().registry) as r:
        await r.ask("POST", "/runs", {"actor": "add", "input": {"a": 1}, "id": "q"})
        assert (await r.ask("GET", "/runs/q/chunks")).json == {
            "chunks": [],
            "cursor": None,
            "caught_up": True,
            "ended": False,
        }


# --- telling ---------------------------------------------------------------------------------------------------------


async def test_what_is_sent_reaches_the_run_once() -> None:
    async with rig(told().registry, worker=True) as r:
        await r.ask("POST", "/runs", {"actor": "ask", "id": "q"})
        for _ in range(2):
            reply = await r.ask(
                "POST", "/runs/q/inbox", {"type": "answer", "data": {"x": 1}, "id": "m1", "sender": "me"}
            )
            assert (reply.status, reply.json) == (202, {"id": "m1"})
        assert await result_of(r, "q") == {"x": 1}
        late = await r.ask("POST", "/runs/q/inbox", {"type": "answer"})
        assert (late.status, late.error["code"]) == (409, "ended")


async def test_a_message_gets_an_id() -> None:
    async with rig() as r:
        await r.begin()
        ids = [(await r.ask("POST", "/runs/r/inbox", {"type": "hello"})).json["id"] for _ in range(2)]
        assert len(set(ids)) == 2


async def test_cancel_is_confirmed_in_the_stream() -> None:
    async with rig(told().registry, worker=True) as r:
        await r.ask("POST", "/runs", {"actor": "ask", "id": "q"})
        async with r.viewer("/runs/q/events") as viewer:
            await viewer.event()
            for _ in range(2):
                reply = await r.ask("POST", "/runs/q/cancel")
                assert (reply.status, reply.json) == (202, {"id": "q"})
            assert (await viewer.rest())[-1].type == "error"
        shown = (await r.ask("GET", "/runs/q")).json
        assert (shown["state"], shown["error"]["code"]) == ("cancelled", "cancelled")
        assert (await r.ask("POST", "/runs/q/cancel")).status == 202


async def test_cancel_before_any_worker() -> None:
    async with rig(told().registry) as r:
        await r.ask("POST", "/runs", {"actor": "ask", "id": "q"})
        assert (await r.ask("POST", "/runs/q/cancel")).status == 202
        async with r.viewer("/runs/q/events") as viewer:
            assert [event.type for event in await viewer.rest()] == ["error"]


async def test_renew() -> None:
    async with rig() as r:
        await r.begin(owner_lease=5.0)
        for _ in range(2):
            reply = await r.ask("POST", "/runs/r/renew")
            assert (reply.status, reply.body) == (204, b"")
        assert (await r.store.runs.get("r")).beat == 2


# --- runs that wait for their readers ------------------------------------------------------------------------------


async def test_readers_say_themselves_how_far_they_have_read() -> None:
    async with rig() as r:
        await r.begin(ahead=3)
        for body, expected in (
            ({"seq": 0}, [0]),
            ({"seq": 1}, [1]),
            ({"seq": 1}, [1]),
            ({"seq": None}, []),
            ({"seq": None}, []),
        ):
            assert (await r.ask("POST", "/runs/r/readers/me", body)).status == 204
            assert [mark.seq for mark in await r.store.logs.positions("r")] == expected


async def test_nothing_is_noted_where_nothing_waits() -> None:
    async with rig() as r:
        await r.begin()
        assert (await r.ask("POST", "/runs/r/readers/me", {"seq": 1})).status == 204
        assert await r.store.logs.positions("r") == []


async def test_a_connection_counts_as_a_reader_unless_it_says_otherwise() -> None:
    async with rig() as r:
        await r.begin(ahead=3)
        async with r.viewer("/runs/r/events?attach=0") as viewer:
            assert viewer.reply.header("loom-ahead") == "3"
            await viewer.event()
            assert await r.store.logs.positions("r") == []
        async with r.viewer("/runs/r/events") as viewer:
            assert viewer.reply.header("loom-ahead") is None
            await viewer.event()
            await r.say("r", Chunk("data", 1))
            await viewer.event()
            assert len(await r.store.logs.positions("r")) == 1


# --- every answer ----------------------------------------------------------------------------------------------------


async def test_head_for_every_get() -> None:
    async with rig(told().registry) as r:
        await r.begin()
        await r.end()
        for path in ("/runs", "/runs/r", "/runs/r/chunks", "/actors", "/healthz", "/readyz", "/openapi.json"):
            get, head = await r.ask("GET", path), await r.ask("HEAD", path)
            assert (head.status, head.body) == (200, b"")
            assert [item for item in head.headers if item[0] != "date"] == [
                item for item in get.headers if item[0] != "date"
            ]


async def test_no_answer_is_cached() -> None:
    async with rig(told().registry) as r:
        for path in ("/runs", "/actors", "/nothing"):
            assert (await r.ask("GET", path)).header("cache-control") == "no-store"


JSON = {"Content-Type": "application/json"}
START = {"actor": "add", "input": {"a": 1}}

WRONG: list[tuple[str, str, Any, dict[str, str], int, str]] = [
    ("GET", "/nothing", None, {}, 404, "route_not_found"),
    ("GET", "/runs/", None, {}, 404, "route_not_found"),
    ("GET", "/runs/a/b/c", None, {}, 404, "route_not_found"),
    ("GET", "/ws", None, {}, 404, "route_not_found"),
    ("DELETE", "/runs", None, {}, 405, "method_not_allowed"),
    ("PUT", "/runs/r", None, {}, 405, "method_not_allowed"),
    ("GET", "/runs/r/cancel", None, {}, 405, "method_not_allowed"),
    ("OPTIONS", "/runs", None, {}, 405, "method_not_allowed"),
    ("POST", "/runs", b"{", {}, 400, "protocol_error"),
    ("POST", "/runs", b'{"actor": "add", "input": [1,]}', {}, 400, "protocol_error"),
    ("POST", "/runs", b'{"actor": "\xff"}', {}, 400, "protocol_error"),
    ("POST", "/runs", b'{"actor": "add", "input": "\xff"}', {}, 400, "protocol_error"),
    ("POST", "/runs", b'{"actor": "add", "input": {"a": 1}e999}', {}, 400, "protocol_error"),
    (
        "POST",
        "/runs",
        b'{"actor": "add", "input": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        {},
        400,
        "protocol_error",
    ),
    ("POST", "/runs", b"[" * 100_000, {}, 400, "protocol_error"),
    ("POST", "/runs", b"[]", {}, 422, "invalid_input"),
    ("POST", "/runs", b"null", {}, 422, "invalid_input"),
    ("POST", "/runs", {}, {}, 422, "invalid_input"),
    ("POST", "/runs", {"actor": 1}, {}, 422, "invalid_input"),
    ("POST", "/runs", {**START, "unknown": 1}, {}, 422, "invalid_input"),
    ("POST", "/runs", {**START, "id": "a b"}, {}, 422, "invalid_input"),
    ("POST", "/runs", {**START, "id": ""}, {}, 422, "invalid_input"),
    ("POST", "/runs", {**START, "id": "x" * 129}, {}, 422, "invalid_input"),
    ("POST", "/runs", {**START, "id": "a/in"}, {}, 422, "invalid_input"),
    ("POST", "/runs", {**START, "key": "\n"}, {}, 422, "invalid_input"),
    ("POST", "/runs", {**START, "queue": ""}, {}, 422, "invalid_input"),
    ("POST", "/runs", {**START, "queue": "cli.1234abcd.1"}, {}, 422, "invalid_input"),
    ("POST", "/runs", {**START, "timeout": 0}, {}, 422, "invalid_input"),
    ("POST", "/runs", {**START, "timeout": "1s"}, {}, 422, "invalid_input"),
    ("POST", "/runs", {**START, "ahead": -1}, {}, 422, "invalid_input"),
    ("POST", "/runs", {**START, "owner_lease": -1}, {}, 422, "invalid_input"),
    ("POST", "/runs", {"actor": "nobody"}, {}, 404, "unknown_producer"),
    ("POST", "/runs", {"actor": "add", "input": {"a": "x"}}, {}, 422, "invalid_input"),
    ("POST", "/runs", {"actor": "add", "input": {"c": 1}}, {}, 422, "invalid_input"),
    ("POST", "/runs", {**START, "id": "x"}, {"Idempotency-Key": "y"}, 422, "invalid_input"),
    ("POST", "/runs", START, {"Idempotency-Key": ""}, 422, "invalid_input"),
    ("POST", "/runs", START, {"Idempotency-Key": '""'}, 422, "invalid_input"),
    ("POST", "/runs", START, {"Idempotency-Key": "x" * 256}, 422, "invalid_input"),
    ("POST", "/runs", START, {"Idempotency-Key": "\xe4"}, 422, "invalid_input"),
    ("POST", "/runs", START, {"Content-Type": "text/plain"}, 415, "unsupported_media_type"),
    ("POST", "/runs", START, {"Content-Type": "application/x-www-form-urlencoded"}, 415, "unsupported_media_type"),
    ("POST", "/runs", START, {"Content-Type": "application/json; charset=latin-1"}, 415, "unsupported_media_type"),
    ("POST", "/runs", START, {"Content-Type": "-"}, 415, "unsupported_media_type"),
    ("POST", "/runs", None, {}, 422, "invalid_input"),
    ("POST", "/runs", b" " * (limits.BODY_BYTES + 1), {}, 413, "too_large"),
    ("POST", "/runs", {"actor": "add", "input": "x" * limits.INPUT_BYTES}, {}, 413, "too_large"),
    ("GET", "/runs?limit=0", None, {}, 400, "usage"),
    ("GET", "/runs?limit=1001", None, {}, 400, "usage"),
    ("GET", "/runs?limit=x", None, {}, 400, "usage"),
    ("GET", "/runs?limit=-1", None, {}, 400, "usage"),
    ("GET", "/runs?limit=", None, {}, 400, "usage"),
    ("GET", "/runs?limit=%D9%A3", None, {}, 400, "usage"),
    ("GET", "/runs?state=unknown", None, {}, 400, "usage"),
    ("GET", "/runs?actor=a%20b", None, {}, 400, "usage"),
    ("GET", "/runs?before=a%20b", None, {}, 400, "usage"),
    ("GET", "/runs?before=gone", None, {}, 404, "not_found"),
    ("GET", "/runs?label=user", None, {}, 400, "usage"),
    ("GET", "/runs?label=:42", None, {}, 400, "usage"),
    ("GET", "/runs?label=a:1&label=a:2", None, {}, 400, "usage"),
    ("GET", "/runs?label=user:%0a", None, {}, 400, "usage"),
    ("GET", "/runs?parent=a%20b", None, {}, 400, "usage"),
    ("GET", "/runs?root=a%20b", None, {}, 400, "usage"),
    ("POST", "/runs", {**START, "labels": {"user": 42}}, {}, 422, "invalid_input"),
    ("POST", "/runs", {**START, "labels": {"a:b": "x"}}, {}, 422, "invalid_input"),
    ("POST", "/runs", {**START, "labels": {"user": "a\nb"}}, {}, 422, "invalid_input"),
    ("POST", "/runs", {**START, "labels": ["user"]}, {}, 422, "invalid_input"),
    ("GET", "/runs/gone", None, {}, 404, "not_found"),
    ("GET", "/runs/a%00b", None, {}, 404, "not_found"),
    ("GET", "/runs/r%0a", None, {}, 404, "not_found"),
    ("GET", "/runs/r%2fin", None, {}, 404, "route_not_found"),
    ("GET", "/runs/%ff%fe", None, {}, 404, "not_found"),
    ("GET", "/runs/" + "x" * 5000, None, {}, 404, "not_found"),
    ("GET", "/runs/gone/events", None, {}, 404, "not_found"),
    ("GET", "/runs/gone/chunks", None, {}, 404, "not_found"),
    ("POST", "/runs/gone/cancel", None, {}, 404, "not_found"),
    ("POST", "/runs/gone/renew", None, {}, 404, "not_found"),
    ("POST", "/runs/gone/inbox", {"type": "x"}, {}, 404, "not_found"),
    ("GET", "/runs/r/events?after=nonsense", None, {}, 400, "usage"),
    ("GET", "/runs/r/events?after=01-1", None, {}, 400, "usage"),
    ("GET", "/runs/r/events", None, {"Last-Event-ID": "nonsense"}, 400, "usage"),
    ("GET", "/runs/r/events?after=7-1", None, {}, 410, "cursor_expired"),
    ("GET", "/runs/r/events?named=perhaps", None, {}, 400, "usage"),
    ("GET", "/runs/r/events", None, {"Accept": "application/json"}, 406, "not_acceptable"),
    ("GET", "/runs/r/events", None, {"Accept": "text/event-stream;q=0, text/html"}, 406, "not_acceptable"),
    ("GET", "/runs/r/chunks?after=7-1", None, {}, 410, "cursor_expired"),
    ("GET", "/runs/r/chunks?limit=10001", None, {}, 400, "usage"),
    ("GET", "/runs/r/chunks?wait=soon", None, {}, 400, "usage"),
    ("GET", "/runs/r/chunks?wait=-1s", None, {}, 400, "usage"),
    ("POST", "/runs/gone/readers/me", {"seq": 1}, {}, 404, "not_found"),
    ("POST", "/runs/r/readers/a%20b", {"seq": 1}, {}, 422, "invalid_input"),
    ("POST", "/runs/r/readers/me", {"seq": -1}, {}, 422, "invalid_input"),
    ("POST", "/runs/r/readers/me", {}, {}, 422, "invalid_input"),
    ("GET", "/runs/r/events?attach=perhaps", None, {}, 400, "usage"),
    ("GET", "/runs/r?full=perhaps", None, {}, 400, "usage"),
    ("POST", "/runs/r/inbox", {}, {}, 422, "invalid_input"),
    ("POST", "/runs/r/inbox", {"type": "a b"}, {}, 422, "invalid_input"),
    ("POST", "/runs/r/inbox", {"type": "x", "id": "a b"}, {}, 422, "invalid_input"),
    ("POST", "/runs/r/inbox", {"type": "x", "sender": ""}, {}, 422, "invalid_input"),
    ("POST", "/runs/r/inbox", {"type": "x", "data": "y" * limits.MESSAGE_BYTES}, {}, 413, "too_large"),
]


async def test_wrong_requests() -> None:
    async with rig(told().registry) as r:
        await r.begin()
        for method, path, body, headers, status, code in WRONG:
            case = (method, path[:60], str(body)[:60], headers)
            reply = await r.ask(method, path, body, headers=headers)
            assert (reply.status, reply.error["code"]) == (status, code), case
            assert reply.error["message"], case
            if status == 405:
                assert reply.header("allow") in ("GET, HEAD, POST", "GET, HEAD", "POST"), case
        assert [run["id"] for run in (await r.ask("GET", "/runs")).json["runs"]] == ["r"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/runs", rb'{"actor": "add", "input": {"a": "\uD800"}}'),
        ("/runs", rb'{"actor": "\uD800"}'),
        ("/runs", rb'{"actor": "add", "input": {"a": 1}, "key": "\uD800"}'),
        ("/runs/r/inbox", rb'{"type": "x", "data": ["\uD800"]}'),
        ("/actors/add/stream", rb'{"input": {"a": "\uD800"}}'),
        ("/v1/chat/completions", rb'{"model": "add", "messages": [{"role": "user", "content": "\uD800"}]}'),
        ("/api/any/chat", rb'{"messages": [{"role": "user", "content": "\uD800"}]}'),
        ("/actors/add/stream?input=%22%5CuD800%22", None),
    ],
)
async def test_half_a_character_is_named_and_where_it_stands(path: str, body: bytes | None) -> None:
    async with rig(told().registry) as r:
        await r.begin()
        reply = await r.ask("GET" if body is None else "POST", path, body)
        place = 1 if body is None else body.index(b"\\u")
        assert reply.status == 400
        assert rf"a lone surrogate in JSON: \uD800 at byte {place}" in reply.json["error"]["message"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"actor": 1}, "actor"),
        ({**START, "timeout": "x"}, "timeout"),
        ({**START, "timeout": -1}, "timeout"),
        ({**START, "key": "a b"}, "key"),
        ({"actor": "add", "input": {"a": "x"}}, "a"),
    ],
)
async def test_the_field_is_named(body: Any, field: str) -> None:
    async with rig(told().registry) as r:
        error = (await r.ask("POST", "/runs", body)).error
        assert error["details"] == {"field": field}
        assert field in error["message"]


@pytest.mark.parametrize(
    ("path", "last", "field"),
    [
        ("/runs/r/events", "nonsense", "Last-Event-ID"),
        ("/runs/r/events", "other:7-1", "Last-Event-ID"),
        ("/runs/r/events?after=x", "r:7", "Last-Event-ID"),
        ("/runs/r/events?after=x", None, "after"),
        ("/runs/r/chunks?after=r:7-1", "7-1", "after"),
    ],
)
async def test_it_is_said_which_of_the_two_is_no_cursor(path: str, last: str | None, field: str) -> None:
    async with rig(told().registry) as r:
        await r.begin()
        error = (await r.ask("GET", path, headers={"Last-Event-ID": last} if last else {})).error
        assert error["details"] == {"field": field}
        assert error["message"].startswith(f"{field}: not a cursor: ")


async def test_a_full_store_is_507() -> None:
    async with rig(told().registry) as r:
        r.transport.trouble["start"] = StoreFull("no room")
        reply = await r.ask("POST", "/runs", START)
        assert (reply.status, reply.error["code"], reply.error["retryable"]) == (507, "store_full", True)


async def test_our_own_fault_is_told_without_its_details(caplog: pytest.LogCaptureFixture) -> None:
    async with rig(told().registry) as r:
        r.transport.trouble["start"] = ZeroDivisionError("a secret")
        reply = await r.ask("POST", "/runs", START)
        assert (reply.status, reply.error["code"]) == (500, "internal")
        assert b"secret" not in reply.body
        assert "a secret" in caplog.text


async def test_a_body_without_a_length_is_bounded_too() -> None:
    async with rig(told().registry) as r:
        head = b"POST /runs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n"
        pieces = [b"%x\r\n" % 65536 + b" " * 65536 + b"\r\n"] * (limits.BODY_BYTES // 65536 + 1)
        reply = await ask_raw(r.address, head + b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(pieces) + b"0\r\n\r\n")
        assert (reply.status, reply.error["code"]) == (413, "too_large")


async def test_json_types_that_are_json() -> None:
    async with rig(told().registry) as r:
        for given in (
            "application/json; charset=utf-8",
            'application/json;charset="UTF-8"',
            "application/ld+json",
            "APPLICATION/JSON",
        ):
            assert (await r.ask("POST", "/runs", START, headers={"Content-Type": given})).status == 201

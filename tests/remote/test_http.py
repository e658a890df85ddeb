"""Each call of the transport against a real server; and what becomes of calls when the server is in trouble."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import msgspec
import pytest

from loom.engine.declare.registry import Registry
from loom.engine.declare.signature import make_producer
from loom.model import limits
from loom.model.chunk import Chunk, Message, Page
from loom.model.cursor import Cursor
from loom.model.errors import (
    Conflict,
    CursorExpired,
    HandleClosed,
    LimitExceeded,
    LogNotFound,
    OutcomeUnknown,
    RemoteProtocolError,
    StoreFull,
    Unauthorized,
    Unavailable,
    UnknownProducer,
)
from loom.model.options import DEFAULTS, Options
from loom.model.run import Head, Meta, RunFilter, Start
from loom.remote.http import CALL_ATTEMPTS, CALL_WITHIN, HttpTransport, Patience
from loom.tasks import spawn
from loom.wire.views import error_body, view_of
from tests.server.harness import PATIENCE, rig

from .scripted import Answer, scripted, sized

pytestmark = pytest.mark.anyio

QUICK = Patience(reconnect=(0.001, 0.01))
OPTIONS: dict[str, Any] = {
    "queue": "q", "key": "k", "timeout": 5.0, "idle_timeout": 2.0, "ahead": 3, "retention": 4.0,
    "labels": {"user": "42"},
}  # fmt: skip
META = Meta(run="r", actor="a", input=msgspec.Raw(b'{"n":1}'), owner_lease=7.0, **OPTIONS)
ASKED = Start(run="r", actor="a", input=META.input, owner_lease=7.0, options=Options(**OPTIONS))


@asynccontextmanager
async def transport_to(url: str, **options: Any) -> AsyncIterator[HttpTransport]:
    """It holds no connection in the end."""
    transport = HttpTransport(url, **{"patience": QUICK, **options})
    yield transport
    assert "0 in use" in repr(transport._connections)
    await transport.aclose()


def raw(value: Any) -> Any:
    """A head that can be compared: raw JSON has no equality of its own."""
    if isinstance(value, msgspec.Struct):
        return {field: raw(getattr(value, field)) for field in value.__struct_fields__}
    return bytes(value) if isinstance(value, msgspec.Raw) else value


# --- calls -----------------------------------------------------------------------------------------------------------


async def test_a_start_says_everything() -> None:
    async with rig() as r, transport_to(r.address.url) as transport:
        head = await transport.start(ASKED)
        stored = await r.store.runs.get("r")
        assert raw(head) == raw(stored)
        assert stored.meta.same_request(META)
        assert stored.meta.owner_lease == 7.0
        assert stored.meta.settled() == {**DEFAULTS, **OPTIONS}
        assert raw(await transport.start(ASKED)) == raw(stored)
        with pytest.raises(Conflict):
            await transport.start(Start(run="r", actor="b"))


async def test_a_head_is_the_stores() -> None:
    async with rig() as r, transport_to(r.address.url) as transport:
        await r.begin("r", input=msgspec.Raw(b'{"n":1}'), key="k")
        assert raw(await transport.head("r")) == raw(await r.store.runs.get("r"))
        await r.end("r")
        head = await transport.head("r")
        assert raw(head) == raw(await r.store.runs.get("r"))
        assert head.result is not None
        assert head.latest == (await r.store.runs.get("r")).latest
        with pytest.raises(LogNotFound):
            await transport.head("nobody")


async def test_heads_are_the_stores() -> None:
    async with rig() as r, transport_to(r.address.url) as transport:
        for run in ("r1", "r2", "r3"):
            await r.begin(run, actor="b" if run == "r2" else "a")
        await r.end("r3")
        listed = await transport.list_runs()
        assert [head.meta.run for head in listed] == ["r3", "r2", "r1"]
        assert [head.state for head in await transport.list_runs(limit=1)] == ["completed"]
        assert [head.meta.run for head in await transport.list_runs(RunFilter(actor="a"), before="r3")] == ["r1"]
        assert [head.meta.run for head in await transport.list_runs(RunFilter(state="running"), limit=10**6)] == [
            "r2",
            "r1",
        ]


async def test_actors() -> None:
    registry = Registry()

    def double(n: int) -> int:
        """Twice as much."""
        return 2 * n

    registry.add(make_producer("double", double))
    async with rig(registry) as r, transport_to(r.address.url) as transport:
        (actor,) = await transport.actors()
        assert actor == registry.get("double").info()
        with pytest.raises(UnknownProducer):
            await transport.start(Start(run="r", actor="treble"))


async def test_reading_pages() -> None:
    async with rig() as r, transport_to(r.address.url) as transport:
        await r.begin()
        await r.say("r", *(Chunk("data", i) for i in range(5)))
        page = await transport.read("r", None, limit=4, wait=0.0)
        stored = await r.store.logs.read("r", None, limit=4)
        assert b"".join(batch.payload for batch in page.batches) == b"".join(batch.payload for batch in stored.batches)
        assert (page.cursor, page.caught_up, page.ended) == (stored.cursor, False, False)
        last = await r.end()
        page = await transport.read("r", page.cursor, limit=10**6, wait=0.0)
        assert (len(page), page.cursor, page.caught_up, page.ended) == (3, last, True, True)
        async with asyncio.timeout(10):
            assert (await transport.read("r", last, limit=1, wait=3600.0)).ended
        with pytest.raises(CursorExpired):
            await transport.read("r", Cursor(7, 7), limit=1, wait=0.0)


async def test_a_read_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Longer than the server would at a time: it is asked again."""
    monkeypatch.setattr(limits, "LONG_POLL", 0.02)
    async with rig() as r, transport_to(r.address.url) as transport:
        cursor = await r.begin()
        empty = await transport.read("r", cursor, limit=1, wait=0.05)
        assert (len(empty), empty.cursor, empty.caught_up, empty.ended) == (0, cursor, True, False)
        asked = r.transport.reads.qsize()
        reading = spawn(transport.read("r", cursor, limit=1, wait=20.0), "test")
        for _ in range(asked + 2):  # it has waited for more than one answer
            await asyncio.wait_for(r.transport.reads.get(), PATIENCE)
        await r.say("r", Chunk("data", 1))
        assert len(await reading) == 1


async def test_a_read_waits_as_long_as_it_was_asked_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """That is no missing answer, and no server is asked to wait for longer than it would."""
    monkeypatch.setattr(limits, "LONG_POLL", 0.2)
    async with rig() as r, transport_to(r.address.url, patience=Patience(answer=0.1)) as transport:
        cursor = await r.begin()
        assert not len(await transport.read("r", cursor, limit=1, wait=0.3))
    empty = sized("200 OK", msgspec.json.encode(ANSWERS["read"]))
    ended = sized("200 OK", msgspec.json.encode({"chunks": [], "ended": True}))
    async with scripted() as server, transport_to(server.url) as transport:
        server.play(empty, ended)
        await transport.read("r", None, limit=1, wait=5.0)
        assert [asked.target.partition("wait=")[2] for asked in server.asked] == ["0.200", "0.200"]


async def test_a_reader_that_is_not_to_count_is_not_marked() -> None:
    async with rig() as r, transport_to(r.address.url) as transport:
        await r.begin(ahead=3)
        for attach in (False, True):
            follower = transport.follow("r", attach=attach)
            assert len(await anext(follower)) == 1
            assert len(await r.store.logs.positions("r")) == attach
            await follower.aclose()
            assert await r.store.logs.positions("r") == []


async def test_a_message_and_a_cancel() -> None:
    async with rig() as r, transport_to(r.address.url) as transport:
        await r.begin()
        for _ in range(2):
            await transport.send("r", Message("word", {"a": [1]}, "me", "1"))
        page = await r.store.logs.read("r/in", None)
        (line,) = [line for _, line in page.lines()]
        stored = msgspec.json.decode(line)
        assert {name: stored[name] for name in ("type", "data", "sender", "id")} == {
            "type": "word", "data": {"a": [1]}, "sender": "me", "id": "1",
        }  # fmt: skip
        await transport.cancel("r")
        page = await r.store.logs.read("r/in", page.cursor)
        assert b'"cancel"' in page.batches[0].payload
        for call in (transport.cancel("nobody"), transport.send("nobody", Message("a", sender="s", id="i"))):
            with pytest.raises(LogNotFound):
                await call


async def test_the_owners_heartbeat() -> None:
    async with rig() as r, transport_to(r.address.url) as transport:
        await r.begin(owner_lease=5.0)
        await transport.heartbeat("r")
        await transport.heartbeat("r")
        assert (await r.store.runs.get("r")).beat == 2


async def test_a_readers_mark() -> None:
    async with rig() as r, transport_to(r.address.url) as transport:
        await r.begin(ahead=3)
        await transport.commit_position("r", "me", 1)
        (mark,) = await r.store.logs.positions("r")
        assert (mark.reader, mark.seq) == ("me", 1)
        await transport.commit_position("r", "me", None)
        assert await r.store.logs.positions("r") == []


async def test_a_name_that_no_run_has() -> None:
    async with rig() as r, transport_to(r.address.url) as transport:
        await r.begin("events")
        for name in ("?", "..", "a b", "é", "%2F", "#", "../events", "x/../../runs/events", "events?x"):
            with pytest.raises(LogNotFound):
                await transport.head(name)


async def test_keys() -> None:
    async with rig(keys=["right-key"]) as r:
        await r.begin()
        for key in (None, "wrong-key"):
            async with transport_to(r.address.url, api_key=key) as transport:
                with pytest.raises(Unauthorized) as caught:
                    await transport.list_runs()
                assert "wrong-key" not in repr(caught.value)
                with pytest.raises(Unauthorized):
                    await anext(transport.follow("r"))
        async with transport_to(r.address.url, api_key="right-key") as transport:
            assert len(await transport.list_runs()) == 1
            follower = transport.follow("r")
            assert len(await anext(follower)) == 1
            await follower.aclose()
            assert "right-key" not in repr(transport)


async def test_it_may_be_mounted_below_a_path() -> None:
    async with scripted() as server:
        server.play(sized("200 OK", b'{"actors":[]}'))
        async with transport_to(f"{server.url}/loom/") as transport:
            assert await transport.actors() == []
            assert server.asked[0].target == "/loom/actors"


# --- a server in trouble ---------------------------------------------------------------------------------------------

CALLS: dict[str, Callable[[HttpTransport], Awaitable[Any]]] = {
    "start": lambda t: t.start(ASKED),
    "head": lambda t: t.head("r"),
    "heads": lambda t: t.list_runs(),
    "actors": lambda t: t.actors(),
    "read": lambda t: t.read("r", None, limit=1, wait=0.0),
    "send": lambda t: t.send("r", Message("a", sender="s", id="i")),
    "cancel": lambda t: t.cancel("r"),
    "touch": lambda t: t.heartbeat("r"),
    "mark": lambda t: t.commit_position("r", "me", 1),
}

ANSWERS = {
    "start": view_of(Head(meta=META)),
    "head": view_of(Head(meta=META)),
    "heads": {"runs": []},
    "actors": {"actors": []},
    "read": {"chunks": [], "cursor": None, "caught_up": True, "ended": False},
}


@pytest.fixture
def quick_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loom.remote.http.CALL_BACKOFF", (0.001, 0.002))


def answer_to(call: str) -> Answer:
    return sized("200 OK", msgspec.json.encode(ANSWERS.get(call)))


def unavailable(details: dict[str, Any] | None = None) -> Answer:
    return sized("503 Service Unavailable", error_body(Unavailable("busy", details=details).info))


@pytest.mark.usefixtures("quick_calls")
@pytest.mark.parametrize("call", CALLS)
async def test_every_call_is_made_again_the_same(call: str) -> None:
    """Connections that break, and a server that says it passes, are asked again, word for word."""
    async with scripted() as server:
        unknown = sized("503 Who Knows", error_body(OutcomeUnknown("?").info))
        server.play(b"", b"HTTP/1.1 200 OK\r\nContent-Le", unavailable(), unknown, answer_to(call))
        async with transport_to(server.url) as transport:
            await CALLS[call](transport)
            assert len(server.asked) == 5
            assert len({(asked.method, asked.target, asked.body) for asked in server.asked}) == 1


@pytest.mark.usefixtures("quick_calls")
@pytest.mark.parametrize("call", CALLS)
async def test_but_not_for_ever(call: str) -> None:
    async with scripted() as server:
        server.play(unavailable())
        async with transport_to(server.url) as transport:
            with pytest.raises(Unavailable, match="busy"):
                await CALLS[call](transport)
            assert len(server.asked) == CALL_ATTEMPTS


@pytest.mark.usefixtures("quick_calls")
@pytest.mark.parametrize("pause", ["abc", None, -1e9])
async def test_what_is_no_pause_is_not_waited_for(pause: Any) -> None:
    async with scripted() as server:
        server.play(unavailable({"retry_after": pause}), answer_to("actors"))
        async with transport_to(server.url) as transport:
            await CALLS["actors"](transport)
        assert len(server.asked) == 2


@pytest.mark.usefixtures("quick_calls")
async def test_an_answer_that_drips_hangs_no_call() -> None:
    async with scripted() as server:
        server.play(Answer(b"HTTP/1.1 200 OK\r\nContent-Length: 999999\r\n\r\n", "drip"))
        async with transport_to(server.url, patience=Patience(answer=0.1)) as transport, asyncio.timeout(10):
            with pytest.raises(Unavailable, match="in time"):
                await transport.head("run")
        assert len(server.asked) == CALL_ATTEMPTS


@pytest.mark.usefixtures("quick_calls")
async def test_the_server_may_ask_for_a_pause_but_not_for_too_long_a_one() -> None:
    async with scripted() as server:
        server.play(unavailable({"retry_after": 0.05}), answer_to("actors"))
        async with transport_to(server.url) as transport:
            began = asyncio.get_running_loop().time()
            await transport.actors()
            assert asyncio.get_running_loop().time() - began >= 0.05
            server.play(unavailable({"retry_after": CALL_WITHIN + 1}))
            with pytest.raises(Unavailable):
                await transport.actors()
            assert len(server.asked) == 3


FINAL: dict[str, tuple[Answer, type[Exception]]] = {
    "a refusal": (sized("409 Conflict", error_body(Conflict("taken").info)), Conflict),
    "a limit": (sized("429 Too Many", error_body(LimitExceeded("full").info)), LimitExceeded),
    "a full store": (sized("507 Full", error_body(StoreFull("full").info)), StoreFull),
    "another program": (sized("404 Not Found", b"<html>", kind="text/html"), RemoteProtocolError),
    "a page instead of JSON": (sized("200 OK", b"<html>", kind="text/html"), RemoteProtocolError),
    "other JSON": (sized("200 OK", b'{"hello":1}'), RemoteProtocolError),
}


@pytest.mark.parametrize("what", FINAL)
async def test_what_is_final_is_raised_at_once(what: str) -> None:
    answer, kind = FINAL[what]
    async with scripted() as server:
        server.play(answer)
        async with transport_to(server.url) as transport:
            with pytest.raises(kind):
                await transport.list_runs()
            assert len(server.asked) == 1


async def test_calls_beyond_the_bound_wait_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads that wait, and followers, are no calls: they hold up none."""
    monkeypatch.setattr("loom.remote.http.CALLS", 3)
    async with rig() as r, transport_to(r.address.url) as transport:
        cursor = await r.begin()
        waiting = [spawn(transport.read("r", cursor, limit=1, wait=20.0), "test") for _ in range(5)]
        following = [transport.follow("r") for _ in range(5)]
        for follower in following:
            await anext(follower)
        await asyncio.gather(*(transport.head("r") for _ in range(20)))
        await r.end()
        assert [len(page) for page in await asyncio.gather(*waiting)] == [1] * 5
        for follower in following:
            assert (await anext(follower)).ended
            await follower.aclose()


async def test_no_more_calls_are_made_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loom.remote.http.CALLS", 3)
    async with scripted() as server:
        server.play(Answer(b"", "hold"))
        transport = HttpTransport(server.url)
        tasks = [spawn(transport.head("r"), "test") for _ in range(10)]
        await server.until_asked(3)
        follower = spawn(_page(transport), "test")  # which is no call
        await server.until_asked(4)
        assert len(server.asked) == 4
        await transport.aclose()
        for task in tasks:
            with pytest.raises(HandleClosed):
                await task
        with pytest.raises(HandleClosed):
            await follower


async def _page(transport: HttpTransport) -> Page:
    return await anext(transport.follow("r"))


async def test_closing_ends_calls() -> None:
    async with scripted() as server:
        server.play(Answer(b"", "hold"))
        transport = HttpTransport(server.url)
        tasks = [spawn(cast(Any, call(transport)), "test") for call in CALLS.values()]
        await server.until_asked(len(tasks))
        await transport.aclose()
        for task in tasks:
            with pytest.raises(HandleClosed):
                await task
        for call in CALLS.values():
            with pytest.raises(HandleClosed):
                await call(transport)
        with pytest.raises(HandleClosed):
            await anext(transport.follow("r"))

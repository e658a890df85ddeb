"""Following through trouble: every kind of broken stream, growing pauses, final refusals, silence, closing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

import pytest

from loom.model.chunk import Page
from loom.model.cursor import Cursor
from loom.model.errors import (
    CursorExpired,
    HandleClosed,
    LimitExceeded,
    LogNotFound,
    LoomError,
    RemoteProtocolError,
    Unauthorized,
    Unavailable,
)
from loom.remote.http import HttpTransport, Patience
from loom.tasks import spawn
from loom.wire.sse import HEARTBEAT, fault, retry
from loom.wire.views import error_body
from tests.waits import until

from .scripted import EPOCH, STREAM, TO_THE_CLOSE, Answer, Asked, Scripted, chunked, said, scripted, sized

pytestmark = pytest.mark.anyio

QUICK = Patience(connect=5.0, answer=5.0, silence=5.0, reconnect=(0.002, 0.016))
WHOLE = Answer(chunked(said(1, 5, end=True)), "keep")
GONE = Answer(b"HTTP/1.1 204 No Content\r\n\r\n", "keep")


async def seqs_of(server: Scripted, after: Cursor | None = None, patience: Patience = QUICK) -> list[int]:
    """The seqs that a follower gives, to the run's end; its pages are checked to continue each other."""
    transport = HttpTransport(server.url, patience=patience)
    seqs: list[int] = []
    try:
        async with asyncio.timeout(10):
            async for page in transport.follow("run", after):
                for batch in page.batches:
                    seqs += range(batch.first, batch.last + 1)
    finally:
        assert "0 in use" in repr(transport._connections)
        await transport.aclose()
    return seqs


async def page_of(follower: AsyncGenerator[Page, None]) -> Page:
    return await anext(follower)


def afters(server: Scripted) -> list[str]:
    """The cursors that were asked for."""
    return [asked.target.partition("after=")[2].partition("&")[0] for asked in server.asked]


def then_whole(server: Scripted, answers: Sequence[Answer | bytes]) -> Callable[[Asked], Answer]:
    """First these answers, then what follows the cursor that is asked for, to the end."""
    broken = list(answers)

    def react(asked: Asked) -> Answer:
        if broken:
            answer = broken.pop(0)
            return answer if isinstance(answer, Answer) else Answer(answer)
        after = afters(server)[-1]
        first = int(after.partition("-")[2]) + 1 if after else 1
        return Answer(chunked(said(first, 5, end=True)), "keep")

    return react


# --- one stream ------------------------------------------------------------------------------------------------------


async def test_what_is_asked() -> None:
    async with scripted() as server:
        server.play(Answer(chunked(said(8, 9, end=True)), "keep"))
        assert await seqs_of(server, Cursor(EPOCH, 7)) == [8, 9]
    (asked,) = server.asked
    assert (asked.method, asked.target) == ("GET", f"/runs/run/events?attach=0&after={EPOCH}-7")
    assert asked.headers["accept"] == "text/event-stream"


async def test_each_read_is_one_page() -> None:
    """As it comes: nothing is waited for that is not there."""
    async with scripted() as server:
        server.play(Answer(chunked(said(1, 3), HEARTBEAT, said(4, 4)[:9], ended=False), "hold"))
        transport = HttpTransport(server.url)
        follower = transport.follow("run")
        page = await anext(follower)
        assert [(batch.first, batch.last) for batch in page.batches] == [(1, 3)]
        assert (page.cursor, page.caught_up, page.ended) == (Cursor(EPOCH, 3), False, False)
        await follower.aclose()
        await server.until_closed()
        await transport.aclose()


async def test_nothing_left() -> None:
    async with scripted() as server:
        server.play(GONE)
        assert await seqs_of(server, Cursor(EPOCH, 5)) == []


@pytest.mark.parametrize("after", [None, Cursor(EPOCH, 2)])
async def test_an_end_that_no_chunk_has_told_is_none(after: Cursor | None) -> None:
    """A 204 says that the caller has had the end: never to who begins, nor behind what was given since."""
    async with scripted() as server:
        server.play(*([] if after is None else [chunked(said(3, 4), ended=False)]), GONE)
        with pytest.raises(RemoteProtocolError, match="no chunk has ended it"):
            await seqs_of(server, after, QUICK)


async def test_a_refusal_that_drips_is_given_up_in_time() -> None:
    """However steadily its bytes come: the next answer is whole."""
    refusal = Answer(b"HTTP/1.1 404 Not Found\r\nContent-Length: 999999\r\n\r\n", "drip")
    async with scripted() as server:
        server.play(refusal, WHOLE)
        assert await seqs_of(server, patience=Patience(answer=0.3, reconnect=(0.002, 0.016))) == [1, 2, 3, 4, 5]


async def test_the_end_stays_the_end() -> None:
    async with scripted() as server:
        server.play(WHOLE)
        transport = HttpTransport(server.url)
        follower = transport.follow("run")
        page = await anext(follower)
        assert page.ended
        for _ in range(2):
            with pytest.raises(StopAsyncIteration):
                await anext(follower)
        assert (await anext(transport.follow("run"))).ended
        assert server.made == 1  # the connection was kept
        await transport.aclose()


# --- streams that break ----------------------------------------------------------------------------------------------

BREAKS: dict[str, list[Answer | bytes]] = {
    "nothing at all": [b""],
    "half a status line": [b"HTTP/1.1 20"],
    "only a head": [chunked(ended=False)],
    "an empty stream": [chunked()],
    "cut between events": [chunked(said(1, 2), ended=False)],
    "cut within a frame": [chunked(said(1, 2) + said(3, 3)[:20], ended=False)],
    "cut before the blank line": [chunked(said(1, 3)[:-1], ended=False)],
    "cut within the transfer coding": [chunked(said(1, 2), ended=False) + b"40\r\nid: 1000"],
    "ended in an orderly way": [chunked(said(1, 2))],
    "without length, cut between events": [TO_THE_CLOSE + said(1, 2)],
    "without length, cut within a frame": [TO_THE_CLOSE + said(1, 3)[:-1]],
    "shorter than said": [STREAM + b"Content-Length: 9999\r\n\r\n" + said(1, 2)],
    "told that it breaks off": [chunked(said(1, 2) + fault(Unavailable("restarting").info))],
    "a fault of the server's own": [chunked(said(1, 2) + fault(LoomError("bug").info))],
    "503": [sized("503 Service Unavailable", error_body(Unavailable("busy").info))],
    "500": [sized("500 Internal Server Error", error_body(LoomError("bug").info))],
    "502 of a proxy": [sized("502 Bad Gateway", b"<html>", kind="text/html")],
    "429": [sized("429 Too Many Requests", error_body(LimitExceeded("slow down").info))],
    "broken four times": [chunked(said(1, 1), ended=False), b"", chunked(said(2, 3)[:-7], ended=False), b"HTTP"],
    "one chunk each time": [
        chunked(said(1, 1), ended=False), chunked(said(2, 2)), TO_THE_CLOSE + said(3, 3), chunked(said(4, 4)),
    ],
}  # fmt: skip


@pytest.mark.parametrize("what", BREAKS)
async def test_it_goes_on_behind_what_was_given(what: str) -> None:
    async with scripted() as server:
        server.react = then_whole(server, BREAKS[what])
        assert await seqs_of(server) == [1, 2, 3, 4, 5]
        assert len(server.asked) == len(BREAKS[what]) + 1


async def test_nobody_there_for_now() -> None:
    async with scripted() as server:
        url = server.url
    port = int(url.rpartition(":")[2])
    transport = HttpTransport(url, patience=QUICK)
    task = spawn(page_of(transport.follow("run")), "test")
    again = Scripted()
    again.play(WHOLE)
    async with await asyncio.start_server(again.serve, "127.0.0.1", port), asyncio.timeout(10):
        page: Page = await task
        assert len(page) == 5
        await transport.aclose()
        await again.hang_up()


# --- pauses ----------------------------------------------------------------------------------------------------------


def pauses_of(caplog: pytest.LogCaptureFixture) -> list[float]:
    return [record.args[-1] for record in caplog.records if record.levelno == logging.INFO]  # type: ignore[misc,index]


async def follow_until(server: Scripted, times: int, patience: Patience = QUICK) -> None:
    """Follow until the server has been asked so many times."""
    transport = HttpTransport(server.url, patience=patience)
    follower = transport.follow("run")
    task = spawn(page_of(follower), "test")
    await server.until_asked(times)
    await transport.aclose()
    with pytest.raises(HandleClosed):
        await task


NO_PROGRESS: dict[str, Answer | bytes] = {
    "200 and closed at once": TO_THE_CLOSE,
    "200 and ended at once": Answer(chunked(), "keep"),
    "heartbeats, then closed": TO_THE_CLOSE + HEARTBEAT,
    "half a frame, then cut": TO_THE_CLOSE + said(1, 1)[:-1],
    "no answer": b"",
    "503": sized("503 Service Unavailable", error_body(Unavailable("busy").info)),
}


@pytest.mark.parametrize("what", NO_PROGRESS)
async def test_it_never_spins(what: str, caplog: pytest.LogCaptureFixture) -> None:
    """Each request but the first comes behind a pause; they double, each jittered."""
    caplog.set_level(logging.INFO, "loom.client")
    async with scripted() as server:
        server.play(NO_PROGRESS[what])
        await follow_until(server, 7, Patience(reconnect=(0.002, 3.0)))  # no stream lasts as long as the longest
    pauses = pauses_of(caplog)
    assert len(pauses) >= 6
    for pause, full in zip(pauses, [0.002, 0.004, 0.008, 0.016, 0.032, 0.064], strict=False):
        assert full / 2 <= pause <= full
    assert len(set(pauses)) == len(pauses)


async def test_progress_begins_the_pauses_anew(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "loom.client")
    async with scripted() as server:
        server.play(b"", b"", b"", chunked(said(1, 2), ended=False), chunked(said(3, 5, end=True)))
        await seqs_of(server)
    first, second, third, fourth = pauses_of(caplog)
    assert first <= 0.002 < second * 2 < third * 4
    assert fourth <= 0.002


async def test_a_stream_that_lasted_begins_the_pauses_anew(caplog: pytest.LogCaptureFixture) -> None:
    """A proxy that cuts idle streams now and then is no server in trouble."""
    caplog.set_level(logging.INFO, "loom.client")
    short = Patience(silence=0.05, reconnect=(0.002, 0.016))
    async with scripted() as server:
        server.play(Answer(chunked(HEARTBEAT, ended=False), "hold"))
        await follow_until(server, 4, short)
    assert max(pauses_of(caplog)) <= 0.002


ASKED_FOR: dict[str, Answer | bytes] = {
    "Retry-After-ms": sized("503 Service Unavailable", b"", "Retry-After-ms: 40"),
    "details": sized("503 Busy", error_body(Unavailable("busy", details={"retry_after": 0.04}).info)),
    "the stream's retry": TO_THE_CLOSE + retry(0.04),
}


@pytest.mark.parametrize("pause", ["abc", None, [], -1e9])
async def test_what_is_no_pause_is_not_waited_for(pause: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "loom.client")
    error = Unavailable("busy", details={"retry_after": pause}).info
    busy = sized("503 Busy", error_body(error))
    async with scripted() as server:
        server.react = then_whole(server, [busy, chunked(fault(error))])
        assert await seqs_of(server) == [1, 2, 3, 4, 5]
    assert all(0 <= pause <= 0.016 for pause in pauses_of(caplog))


@pytest.mark.parametrize("what", ASKED_FOR)
async def test_the_server_may_ask_for_a_longer_pause(what: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "loom.client")
    async with scripted() as server:
        server.play(ASKED_FOR[what])
        await follow_until(server, 3)
    assert all(0.04 < pause <= 0.06 for pause in pauses_of(caplog))


async def test_but_not_for_any_pause(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loom.remote.follower.RETRY_AFTER", 0.03)
    caplog.set_level(logging.INFO, "loom.client")
    async with scripted() as server:
        server.play(sized("503 Service Unavailable", b"", "Retry-After: 86400"))
        await follow_until(server, 3)
    assert all(0.03 < pause <= 0.05 for pause in pauses_of(caplog))


# --- silence ---------------------------------------------------------------------------------------------------------


async def test_silence_is_noticed() -> None:
    """A stream that says nothing any more is given up, and taken up again."""
    silent = [Answer(chunked(said(1, 2), ended=False), "hold"), Answer(chunked(HEARTBEAT, ended=False), "hold")]
    async with scripted() as server:
        server.react = then_whole(server, [*silent, Answer(b"", "hold")])
        patience = Patience(silence=0.1, answer=0.1, reconnect=(0.002, 0.016))
        assert await seqs_of(server, patience=patience) == [1, 2, 3, 4, 5]
        assert len(server.asked) >= 4


async def test_heartbeats_are_no_silence() -> None:
    """More of them than silence would allow, one by one."""

    asked: list[asyncio.StreamReader] = []

    async def beat(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(reader)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(TO_THE_CLOSE)
        for _ in range(6):
            await asyncio.sleep(0.2)  # less than silence, together more
            writer.write(HEARTBEAT)
        writer.write(said(1, 2, end=True))
        await reader.read()
        writer.close()

    async with await asyncio.start_server(beat, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        transport = HttpTransport(url, patience=Patience(silence=1.0))
        assert len(await anext(transport.follow("run"))) == 2
        await transport.aclose()
    assert len(asked) == 1


# --- refusals --------------------------------------------------------------------------------------------------------

FINAL: dict[str, tuple[Answer, type[LoomError]]] = {
    "404": (sized("404 Not Found", error_body(LogNotFound("no run").info)), LogNotFound),
    "410": (
        sized("410 Gone", error_body(CursorExpired("gone", details={"earliest": "1-4"}).info)), CursorExpired,
    ),
    "401": (sized("401 Unauthorized", error_body(Unauthorized("no key").info)), Unauthorized),
    "403": (sized("403 Forbidden", error_body(Unauthorized("no", code="forbidden").info)), Unauthorized),
    "a proxy's 401": (sized("401 Unauthorized", b"<html>", kind="text/html"), Unauthorized),
    "another program's 404": (sized("404 Not Found", b"<html>", kind="text/html"), RemoteProtocolError),
    "a redirect": (sized("302 Found", b"", "Location: http://h/login"), RemoteProtocolError),
    "a page instead of a stream": (sized("200 OK", b"<html>", kind="text/html"), RemoteProtocolError),
    "another run's chunks": (Answer(chunked(said(3, 4))), RemoteProtocolError),
    "gone in the middle": (
        Answer(chunked(said(1, 2) + fault(CursorExpired("gone").info))), CursorExpired,
    ),
    "dropped in the middle": (Answer(chunked(said(1, 2) + fault(LogNotFound("no run").info))), LogNotFound),
}  # fmt: skip


@pytest.mark.parametrize("what", FINAL)
async def test_what_is_final_is_raised_at_once(what: str) -> None:
    answer, kind = FINAL[what]
    async with scripted() as server:
        server.play(answer)
        with pytest.raises(kind) as caught:
            await seqs_of(server)
        assert type(caught.value) is kind
        assert len(server.asked) == 1


async def test_an_expired_cursor_tells_where_to_begin() -> None:
    async with scripted() as server:
        server.play(FINAL["410"][0])
        with pytest.raises(CursorExpired) as caught:
            await seqs_of(server, Cursor(EPOCH, 2))
    assert caught.value.details == {"earliest": "1-4"}


async def test_what_came_before_a_fault_is_given_first() -> None:
    async with scripted() as server:
        server.play(FINAL["gone in the middle"][0])
        transport = HttpTransport(server.url)
        follower = transport.follow("run")
        assert len(await anext(follower)) == 2
        with pytest.raises(CursorExpired):
            await anext(follower)
        with pytest.raises(StopAsyncIteration):
            await anext(follower)
        await transport.aclose()


# --- closing ---------------------------------------------------------------------------------------------------------

PLACES: dict[str, Answer | bytes] = {
    "waiting for an answer": Answer(b"", "hold"),
    "waiting for a chunk": Answer(chunked(ended=False), "hold"),
    "in a pause": b"",
}


@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("end", ["close the transport", "cancel"])
async def test_nothing_outlives_its_end(where: str, end: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "loom.client")
    patience = Patience(reconnect=(3600.0, 3600.0))
    async with scripted() as server:
        server.play(PLACES[where])
        transport = HttpTransport(server.url, patience=patience)
        task = spawn(page_of(transport.follow("run")), "test")
        await server.until_asked(1)
        await until(lambda: where != "in a pause" or bool(caplog.records))
        expected: type[BaseException] = HandleClosed
        if end == "cancel":
            task.cancel()
            expected = asyncio.CancelledError
        else:
            await transport.aclose()
        with pytest.raises(expected):
            await task
        await server.until_closed()
        await transport.aclose()


async def test_closing_in_the_middle_of_a_page() -> None:
    """A viewer that is at work on a page learns of it when it asks for the next."""
    async with scripted() as server:
        server.play(Answer(chunked(said(1, 2), ended=False), "hold"))
        transport = HttpTransport(server.url)
        follower = transport.follow("run")
        await anext(follower)
        await transport.aclose()
        with pytest.raises(HandleClosed):
            await anext(follower)
        await server.until_closed()

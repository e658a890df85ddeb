"""Readers that say themselves how far they have read, and those for whom their connection says it."""

from __future__ import annotations

from typing import Any

import pytest

from loom.model import limits
from loom.model.chunk import Chunk

from .harness import Rig, rig

pytestmark = pytest.mark.anyio


async def marks(r: Rig, run: str = "r") -> dict[str, int]:
    return {mark.reader: mark.seq for mark in await r.store.logs.positions(run)}


async def test_a_connection_counts_as_a_reader() -> None:
    async with rig() as r:
        await r.begin(ahead=3)
        async with r.viewer("/runs/r/events") as viewer:
            await viewer.event()
            await r.say("r", Chunk("data", 1))
            await viewer.event()
            (seq,) = (await marks(r)).values()
            assert seq in (1, 2)  # what was sent last counts once more is asked for
            assert viewer.reply.header("loom-ahead") is None


@pytest.mark.parametrize("ahead", [None, 3])
async def test_unless_its_reader_says_so(ahead: int | None) -> None:
    async with rig() as r:
        await r.begin(ahead=ahead)
        async with r.viewer("/runs/r/events?attach=0") as viewer:
            await viewer.event()
            await r.say("r", Chunk("data", 1))
            await viewer.event()
            assert await marks(r) == {}
            assert viewer.reply.header("loom-ahead") == (None if ahead is None else "3")


async def test_marks() -> None:
    async with rig() as r:
        await r.begin(ahead=3)
        for reader, seq in (("a", 0), ("b", 7), ("a", 1)):
            reply = await r.ask("POST", f"/runs/r/readers/{reader}", {"seq": seq})
            assert (reply.status, reply.body) == (204, b"")
        assert await marks(r) == {"a": 1, "b": 7}
        for _ in range(2):
            assert (await r.ask("POST", "/runs/r/readers/a", {"seq": None})).status == 204
        assert await marks(r) == {"b": 7}
        beats = set()
        for _ in range(3):
            await r.ask("POST", "/runs/r/readers/b", {"seq": 7})
            beats |= {mark.beat for mark in await r.store.logs.positions("r")}
        assert len(beats) == 3


async def test_connections_are_bounded_with_the_other_readers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "READERS", 2)
    async with rig() as r:
        await r.begin(ahead=3)
        assert (await r.ask("POST", "/runs/r/readers/a", {"seq": 0})).status == 204
        async with r.viewer("/runs/r/events") as viewer:
            assert (await viewer.event()).type == "start"
            await r.say("r", Chunk("data", 1))
            await viewer.event()
            assert (await r.ask("POST", "/runs/r/readers/b", {"seq": 0})).status == 429
            async with r.viewer("/runs/r/events?named=0") as other:
                told = [event.data for event in await other.rest()]
            assert b"limit_exceeded" in told[-1]
        await r.end()


async def test_where_nothing_waits_nothing_is_noted() -> None:
    async with rig() as r:
        await r.begin("r")
        await r.begin("ended", ahead=3)
        await r.end("ended")
        for run in ("r", "ended"):
            assert (await r.ask("POST", f"/runs/{run}/readers/me", {"seq": 1})).status == 204
            assert await marks(r, run) == {}


WRONG: list[tuple[str, Any, int, str, str | None]] = [
    ("/runs/nobody/readers/me", {"seq": 1}, 404, "not_found", None),
    ("/runs/r/readers/-me", {"seq": 1}, 422, "invalid_input", "reader"),
    ("/runs/r/readers/" + "x" * 129, {"seq": 1}, 422, "invalid_input", "reader"),
    ("/runs/r/readers/me", {"seq": -1}, 422, "invalid_input", "seq"),
    ("/runs/r/readers/me", {"seq": 10**18}, 422, "invalid_input", "seq"),
    ("/runs/r/readers/me", {"seq": 2**63}, 422, "invalid_input", "seq"),
    ("/runs/r/readers/me", {"seq": 2**64}, 422, "invalid_input", "seq"),
    ("/runs", {"actor": "a", "ahead": 2**63}, 422, "invalid_input", "ahead"),
    ("/runs/r/readers/me", {"seq": "1"}, 422, "invalid_input", "seq"),
    ("/runs/r/readers/me", {"seq": 1, "more": 1}, 422, "invalid_input", ""),
    ("/runs/r/readers/me", {}, 422, "invalid_input", "seq"),
    ("/runs/r/readers/me", b"x", 400, "protocol_error", None),
]


@pytest.mark.parametrize(("path", "body", "status", "code", "field"), WRONG)
async def test_wrong_marks(path: str, body: Any, status: int, code: str, field: str | None) -> None:
    async with rig() as r:
        await r.begin(ahead=3)
        reply = await r.ask("POST", path, body, headers={"Content-Type": "application/json"})
        assert (reply.status, reply.error["code"], reply.error["details"].get("field")) == (status, code, field)
        assert await marks(r) == {}


async def test_readers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "READERS", 2)
    async with rig() as r:
        await r.begin(ahead=3)
        for reader in ("a", "b"):
            await r.ask("POST", f"/runs/r/readers/{reader}", {"seq": 1})
        reply = await r.ask("POST", "/runs/r/readers/c", {"seq": 1})
        assert (reply.status, reply.error["code"]) == (429, "limit_exceeded")
        assert (await r.ask("POST", "/runs/r/readers/b", {"seq": 2})).status == 204
        assert await marks(r) == {"a": 1, "b": 2}
        await r.ask("POST", "/runs/r/readers/a", {"seq": None})
        assert (await r.ask("POST", "/runs/r/readers/c", {"seq": 1})).status == 204
        assert [mark.reader for mark in await r.store.logs.positions("r")] == ["b", "c"]

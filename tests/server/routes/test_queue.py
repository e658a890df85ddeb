"""The routes of the queue, of retries and of workers."""

from __future__ import annotations

import time
from typing import Any

import pytest

from loom.model.run import Meta, WorkerInfo
from tests.server.harness import rig

from .test_runs import told

pytestmark = pytest.mark.anyio


async def test_the_queue_is_shown() -> None:
    async with rig(told().registry) as r:
        for body in (
            {"actor": "add", "id": "later", "input": {"a": 1}, "delay": 1000},
            {"actor": "add", "id": "first", "input": {"a": 1}, "key": "k", "priority": "high"},
            {"actor": "add", "id": "second", "input": {"a": 1}, "key": "k", "queue": "q"},
        ):
            reply = await r.ask("POST", "/runs", body)
            assert reply.status == 201
        shown = (await r.ask("GET", "/queue")).json["entries"]
        assert [(entry["run"], entry["place"]) for entry in shown] == [
            ("first", "ready"), ("second", "behind"), ("later", "delayed"),
        ]  # fmt: skip
        assert shown[0]["priority"] == "high"
        assert shown[2]["not_before"] == pytest.approx(time.time() + 1000, abs=20)
        assert [entry["run"] for entry in (await r.ask("GET", "/queue?queue=q")).json["entries"]] == ["second"]
        assert [entry["run"] for entry in (await r.ask("GET", "/queue?limit=1")).json["entries"]] == ["first"]
        assert [entry["run"] for entry in (await r.ask("GET", "/queue?place=delayed")).json["entries"]] == ["later"]
        for query, field in (("place=gone", "place"), ("limit=0", "limit"), ("queue=a%20b", "queue")):
            refused = await r.ask("GET", f"/queue?{query}")
            assert (refused.status // 100, refused.error["details"]["field"]) == (4, field)


@pytest.mark.parametrize(
    ("field", "value"),
    [("priority", "urgent"), ("priority", 1), ("delay", -1), ("delay", 1e12), ("delay", "5m")],
)
async def test_what_is_no_priority_or_delay_is_refused(field: str, value: Any) -> None:
    async with rig(told().registry) as r:
        reply = await r.ask("POST", "/runs", {"actor": "add", "input": {"a": 1}, field: value})
        assert (reply.status, reply.error["code"]) == (422, "invalid_input")
        assert reply.error["details"]["field"] == field
        assert await r.store.runs.list_runs() == []


async def test_retrying() -> None:
    async with rig(told().registry) as r:
        await r.store.runs.create(Meta(run="open", actor="ask"))
        refused = await r.ask("POST", "/runs/open/retry")
        assert (refused.status, refused.error["code"]) == (409, "conflict")
        await r.ask("POST", "/runs/open/cancel")
        first = await r.ask("POST", "/runs/open/retry", headers={"idempotency-key": "once"})
        second = await r.ask("POST", "/runs/open/retry", headers={"idempotency-key": "once"})
        assert (first.status, second.status, first.json["id"]) == (201, 201, second.json["id"])
        assert first.header("location") == f"/runs/{first.json['id']}"
        assert first.json["retry_of"] == "open"
        named = await r.ask("POST", "/runs/open/retry", {"id": "again"})
        assert named.json["id"] == "again"
        taken = await r.ask("POST", "/runs/open/retry", {"id": "open"})
        assert (taken.status, taken.error["code"]) == (409, "conflict")
        assert (await r.ask("POST", "/runs/nobody/retry")).status == 404
        assert (await r.ask("POST", "/runs/open/retry", {"key": "k"})).status == 422


async def test_workers() -> None:
    async with rig() as r:
        assert (await r.ask("GET", "/workers")).json == {"workers": []}
        await r.store.workers.register(
            WorkerInfo(name="w", host="here", pid=7, queues=("a",), concurrency=3, started=1.0)
        )
        (shown,) = (await r.ask("GET", "/workers")).json["workers"]
        assert shown.pop("seen") == pytest.approx(time.time(), abs=20)
        assert shown == {"name": "w", "host": "here", "pid": 7, "queues": ["a"], "concurrency": 3, "started": 1.0}
        asked = await r.ask("POST", "/workers/w/drain")
        assert (asked.status, asked.json) == (202, {"id": "w"})
        assert (await r.ask("GET", "/workers")).json["workers"][0]["draining"] is True
        for name in ("nobody", "a%20b"):
            refused = await r.ask("POST", f"/workers/{name}/drain")
            assert (refused.status, refused.error["code"]) == (404, "unknown_worker")

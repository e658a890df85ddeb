"""For whoever watches the server: alive, ready, and where to go on."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from loom.model.run import WorkerInfo
from tests.server.harness import rig

pytestmark = pytest.mark.anyio


async def test_a_store_that_does_not_answer_is_not_ready_and_the_server_is_alive(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def hangs(**options: Any) -> Any:
        await asyncio.Event().wait()

    monkeypatch.setattr("loom.server.routes.probes.READY_WITHIN", 0.01)
    async with rig() as r:
        monkeypatch.setattr(r.transport, "list_runs", hangs)
        reply = await r.ask("GET", "/readyz")
        assert (reply.status, reply.error["code"], reply.error["retryable"]) == (503, "unavailable", True)
        assert reply.header("retry-after") == "1"
        assert (await r.ask("GET", "/healthz")).json == {"status": "ok"}


async def test_a_server_whose_worker_drains_is_ready_only_while_another_works() -> None:
    drives = True
    async with rig(drives=lambda: drives) as r:
        assert (await r.ask("GET", "/readyz")).status == 200
        drives = False
        reply = await r.ask("GET", "/readyz")
        assert (reply.status, reply.error["code"]) == (503, "unavailable")
        await r.store.workers.register(WorkerInfo(name="draining", draining=True))
        assert (await r.ask("GET", "/readyz")).status == 503
        await r.store.workers.register(WorkerInfo(name="another"))
        assert (await r.ask("GET", "/readyz")).json == {"status": "ready"}
        await r.store.workers.request_drain("another")
        assert (await r.ask("GET", "/readyz")).status == 503


async def test_the_index_leads_to_what_answers() -> None:
    async with rig() as r:
        index = (await r.ask("GET", "/")).json
        assert index["server"] == "loom"
        for link in index["links"].values():
            assert not link.startswith("/"), "the server may be mounted below a path"
            assert (await r.ask("GET", f"/{link}")).status == 200


async def test_the_description_tells_of_the_probes_too() -> None:
    async with rig() as r:
        paths = (await r.ask("GET", "/openapi.json")).json["paths"]
        assert {"/", "/healthz", "/readyz", "/openapi.json", "/runs"} <= paths.keys()

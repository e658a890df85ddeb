"""FastAPI, which reads annotations and makes models of them: this file has none that are text."""

import asyncio
from typing import Annotated, Any

import fastapi
import pytest

import loom
from tests.frameworks import served_by_uvicorn

from . import harness

pytestmark = pytest.mark.anyio


def user(token: Annotated[str, fastapi.Header()] = "") -> str:
    if token != "secret":
        raise fastapi.HTTPException(401)
    return "ada"


User = Annotated[str, fastapi.Depends(user)]


def api_of(client: loom.Client) -> fastapi.FastAPI:
    api = fastapi.FastAPI()

    @api.get("/annotated/{id}", response_class=loom.EventSourceResponse)
    async def annotated(id: str, request: fastapi.Request, name: User) -> loom.EventSourceResponse:
        return loom.EventSourceResponse(client.run(id), request)

    @api.post("/created/{id}", status_code=201)
    async def created(id: str, request: fastapi.Request) -> loom.EventSourceResponse:
        return loom.EventSourceResponse(client.run(id), request, status_code=201)

    @api.get("/sync/{id}")
    def in_a_thread(id: str, request: fastapi.Request) -> Any:
        return loom.EventSourceResponse(client.run(id), request)

    @api.get("/after")
    async def with_a_task(request: fastapi.Request, tasks: fastapi.BackgroundTasks) -> loom.EventSourceResponse:
        tasks.add_task(api.state.done.set)
        return loom.EventSourceResponse(client.run("mine"), request)

    api.state.done = asyncio.Event()
    return api


async def test_it_is_taken_for_what_it_is() -> None:
    """No response model is made of it, and the description says what it is; a plain `def` makes it in a thread."""
    app = loom.App()

    @app.actor
    async def one() -> int:
        return 1

    async with loom.connect("memory://", app=app, worker=True) as client:
        await (await client.start(one.using(id="mine"))).wait(20)
        api = api_of(client)
        async with served_by_uvicorn(api) as address:
            assert (await harness.ask(address, "GET", "/annotated/mine")).status == 401
            for path in ("/annotated/mine", "/sync/mine", "/after"):
                async with harness.viewer(address, path, headers={"Token": "secret"}) as viewer:
                    assert [event.type for event in await viewer.rest()] == ["start", "complete"]
            assert (await harness.ask(address, "POST", "/created/mine")).status == 201
            await asyncio.wait_for(api.state.done.wait(), harness.PATIENCE)
            document = (await harness.ask(address, "GET", "/openapi.json")).json
    answers = document["paths"]["/annotated/{id}"]["get"]["responses"]
    assert list(answers["200"]["content"]) == ["text/event-stream"]

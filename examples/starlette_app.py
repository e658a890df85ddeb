"""Loom in a Starlette app: mounted as it is, and a run in a page of its own. Run it with `uvicorn starlette_app:app`.

curl -N 'localhost:8000/whispers?about=an+owl' -H 'authorization: Bearer for-ada'
"""

import asyncio
import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

import loom

tellers = loom.App()


@tellers.actor
async def tell(about: str) -> AsyncIterator[str]:
    for word in f"Once there was {about} whose story could be left and taken up again, at every word.".split():
        yield word + " "
        await asyncio.sleep(0.1)


loom_app = loom.asgi(
    os.environ.get("STORIES", "sqlite:///stories.db"),
    app=tellers,
    worker=True,
    keys=[os.environ.get("OPERATOR_KEY", "for-operators")],
)


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[dict[str, Any]]:
    async with loom_app.lifespan() as client:
        yield {"client": client}


def user_of(request: Request) -> str:
    name = {"Bearer for-ada": "ada", "Bearer for-bob": "bob"}.get(request.headers.get("authorization", ""))
    if name is None:
        raise HTTPException(401)
    return name


async def begin(request: Request) -> Response:
    id = f"{user_of(request)}.{uuid.uuid4().hex}"
    run = await request.state.client.start(tell.using(id=id), request.query_params["about"])
    return JSONResponse({"events": f"/stories/{run.id}/events"}, 201)


async def follow(request: Request) -> Response:
    id = request.path_params["id"]
    if not id.startswith(f"{user_of(request)}."):
        raise HTTPException(404)
    return loom.EventSourceResponse(request.state.client.run(id), request)


async def whisper(request: Request) -> Response:
    """Owned: whoever leaves ends it."""
    user_of(request)
    return loom.EventSourceResponse(request.state.client.stream(tell, request.query_params["about"]), request)


app = Starlette(
    lifespan=lifespan,
    routes=[
        Route("/stories", begin, methods=["POST"]),
        Route("/stories/{id}/events", follow),
        Route("/whispers", whisper),
        Mount("/loom", loom_app),
    ],
    exception_handlers={loom.LoomError: loom.error_response},
)

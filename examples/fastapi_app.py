"""Loom in a FastAPI app: its lifespan, its login, its routes. Run it with `uvicorn fastapi_app:api`
(and `--reload` with DRAIN=0: a reload waits until the worker has drained).

curl -X POST 'localhost:8000/stories?about=an+owl' -H 'authorization: Bearer for-ada'
curl -N localhost:8000/stories/ada.1/events -H 'authorization: Bearer for-ada'    # as the first answer says
"""

import asyncio
import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header, HTTPException, Request

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
    drain=float(os.environ.get("DRAIN", "20")),
    worker=True,  # runs are driven in this process; or leave it out, and start `loom worker` elsewhere
    keys=[os.environ.get("OPERATOR_KEY", "for-operators")],  # your routes' login does not reach what is mounted
)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Any]]:
    async with loom_app.lifespan() as client:  # what else your app needs is opened beside it
        yield {"client": client}


api = FastAPI(lifespan=lifespan)
api.mount("/loom", loom_app)
api.add_exception_handler(loom.LoomError, loom.error_response)


def user(authorization: Annotated[str, Header()] = "") -> str:
    name = {"Bearer for-ada": "ada", "Bearer for-bob": "bob"}.get(authorization)
    if name is None:
        raise HTTPException(401)
    return name


def client(request: Request) -> loom.Client:
    found: loom.Client = request.state.client
    return found


User = Annotated[str, Depends(user)]
Client = Annotated[loom.Client, Depends(client)]


@api.post("/stories", status_code=201)
async def begin(about: str, user: User, client: Client) -> dict[str, str]:
    run = await client.start(tell.using(id=f"{user}.{uuid.uuid4().hex}"), about)
    return {"events": f"/stories/{run.id}/events"}


@api.get("/stories/{id}/events", response_class=loom.EventSourceResponse)
async def follow(id: str, request: Request, user: User, client: Client) -> loom.EventSourceResponse:
    """Come, go and come back: the story goes on."""
    if not id.startswith(f"{user}."):
        raise HTTPException(404)
    return loom.EventSourceResponse(client.run(id), request)


@api.get("/whispers", response_class=loom.EventSourceResponse)
async def whisper(about: str, request: Request, user: User, client: Client) -> loom.EventSourceResponse:
    """Owned: whoever leaves ends it."""
    return loom.EventSourceResponse(client.stream(tell, about), request)

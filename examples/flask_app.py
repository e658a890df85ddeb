"""Loom in a Flask app. Run it with `gunicorn --threads 50 flask_app:app`: whoever follows a run holds a thread.

curl -X POST 'localhost:8000/stories?about=an+owl' -H 'authorization: Bearer for-ada'
curl -N localhost:8000/stories/ada.1/events -H 'authorization: Bearer for-ada'    # as the first answer says
"""

import os
import time
import uuid
from collections.abc import Iterator

from flask import Flask, Response, abort, g, request

import loom

tellers = loom.App()


@tellers.actor
def tell(about: str) -> Iterator[str]:
    for word in f"Once there was {about} whose story could be left and taken up again, at every word.".split():
        yield word + " "
        time.sleep(0.1)


# Each process that gunicorn forks connects when it first needs to. Without worker=True, `loom worker` drives the runs.
client = loom.per_process(os.environ.get("STORIES", "sqlite:///stories.db"), app=tellers, worker=True)
app = Flask(__name__)


@app.before_request
def login() -> None:
    name = {"Bearer for-ada": "ada", "Bearer for-bob": "bob"}.get(request.headers.get("authorization", ""))
    if name is None:
        abort(401)
    g.user = name


@app.post("/stories")
def begin() -> tuple[dict[str, str], int]:
    run = client().start(tell.using(id=f"{g.user}.{uuid.uuid4().hex}"), request.args["about"])
    return {"events": f"/stories/{run.id}/events"}, 201


@app.get("/stories/<id>/events")
def follow(id: str) -> Response:
    """Come, go and come back: the story goes on."""
    if not id.startswith(f"{g.user}."):
        abort(404)
    events = loom.sse_events(client().run(id), request)
    return Response(events, events.status, events.headers)


@app.get("/whispers")
def whisper() -> Response:
    """Owned: whoever leaves ends it."""
    events = loom.sse_events(client().stream(tell, request.args["about"]), request)
    return Response(events, events.status, events.headers)

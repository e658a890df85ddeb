"""Loom in a Django app, all in one file. Run it with `gunicorn --threads 50 django_app:application`, or for a look with
`python django_app.py runserver`.

    curl -X POST 'localhost:8000/stories?about=an+owl' -H 'authorization: Bearer for-ada'
    curl -N localhost:8000/stories/ada.1/events -H 'authorization: Bearer for-ada'    # as the first answer says
"""

import os
import sys
import time
import uuid
from collections.abc import Callable, Iterator

from django.conf import settings
from django.core.management import execute_from_command_line
from django.core.wsgi import get_wsgi_application
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, JsonResponse, StreamingHttpResponse
from django.urls import path
from django.views.decorators.http import require_POST, require_safe

import loom

tellers = loom.App()


@tellers.actor
def tell(about: str) -> Iterator[str]:
    for word in f"Once there was {about} whose story could be left and taken up again, at every word.".split():
        yield word + " "
        time.sleep(0.1)


# Each process that gunicorn forks connects when it first needs to. Without worker=True, `loom worker` drives the runs.
client = loom.per_process(os.environ.get("STORIES", "sqlite:///stories.db"), app=tellers, worker=True)


def login(view: Callable[[HttpRequest], HttpResponseBase]) -> Callable[[HttpRequest], HttpResponseBase]:
    """A middleware, as yours may be django.contrib.auth's."""

    def guarded(request: HttpRequest) -> HttpResponseBase:
        name = {"Bearer for-ada": "ada", "Bearer for-bob": "bob"}.get(request.headers.get("authorization", ""))
        if name is None:
            return HttpResponse(status=401)
        request.user = name
        return view(request)

    return guarded


@require_POST
def begin(request: HttpRequest) -> HttpResponseBase:
    run = client().start(tell.using(id=f"{request.user}.{uuid.uuid4().hex}"), request.GET["about"])
    return JsonResponse({"events": f"/stories/{run.id}/events"}, status=201)


@require_safe
def follow(request: HttpRequest, id: str) -> HttpResponseBase:
    """Come, go and come back: the story goes on."""
    if not id.startswith(f"{request.user}."):
        raise Http404
    events = loom.sse_events(client().run(id), request)
    return StreamingHttpResponse(events, status=events.status, headers=events.headers)


@require_safe
def whisper(request: HttpRequest) -> HttpResponseBase:
    """Owned: whoever leaves ends it."""
    events = loom.sse_events(client().stream(tell, request.GET["about"]), request)
    return StreamingHttpResponse(events, status=events.status, headers=events.headers)


urlpatterns = [path("stories", begin), path("stories/<id>/events", follow), path("whispers", whisper)]
settings.configure(
    ROOT_URLCONF=__name__,
    MIDDLEWARE=[f"{__name__}.login"],
    SECRET_KEY=os.environ.get("SECRET_KEY", "not so secret"),
    ALLOWED_HOSTS=["localhost", "127.0.0.1"],
    DEBUG=__name__ == "__main__",
)
application = get_wsgi_application()

if __name__ == "__main__":
    execute_from_command_line(sys.argv)

"""OpenAI's routes: chat completions and models, over actors. An answer is a run, owned by the one who waits for it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, aclosing
from functools import partial
from typing import cast

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from loom.engine.declare.inputs import encode_input
from loom.engine.follow.client import new_id
from loom.model import limits
from loom.model.chunk import Page
from loom.model.errors import LoomError, Unavailable, UnknownProducer, revive
from loom.model.run import DECLARABLE, ActorInfo, Meta
from loom.server.http.answers import json_answer, openai_error, raw_json
from loom.server.http.connection import wait_gone
from loom.server.http.requests import idempotent_id, read_json
from loom.server.stream.events import BEGINNING, EVENT_HEADERS, EventStream, Viewing
from loom.server.stream.streams import Streams, renew
from loom.tasks import cancel_and_wait, spawn, wait_out
from loom.wire.dialects.openai import (
    ApiErrorBody,
    ChatBody,
    ChatRequest,
    Completion,
    Events,
    Model,
    ModelList,
    ProviderChatBody,
    RetractedRanges,
    Whole,
    read_request,
)
from loom.wire.sse import HEARTBEAT

from .operations import Answer, Operation, Parameter, answer_of
from .parameters import IDEMPOTENCY_KEY
from .runs import location_of

__all__ = ["Completions"]

log = logging.getLogger("loom.server")

_PROVIDER = Parameter("path", "provider", "An actor; any other name goes to the app's default one.")
_MODEL = Parameter("path", "model", "The model, slashes and all.")


class Completions:
    """Handlers over the transport, and nothing else of the engine. `default_actor` answers for models that no actor is
    called."""

    def __init__(self, streams: Streams, default_actor: str | None) -> None:
        self._streams = streams
        self._transport = streams.transport
        self._default = default_actor
        self._since = int(time.time())

    def operations(self) -> tuple[Operation, ...]:
        said = {200: Answer("The answer, whole or as it comes.", Completion, ("Location", "X-Request-Id"), True)}
        operation = partial(Operation, refuse=openai_error, error_body=ApiErrorBody)
        errors = (404, 409, 429, 504, 507)
        return (
            operation(
                "POST", "/v1/chat/completions", "createChatCompletion", "A chat, for OpenAI's clients.",
                self.complete, said, (IDEMPOTENCY_KEY,), ChatBody, errors,
            ),
            operation(
                "POST", "/api/{provider}/chat", "chat", "The same with the actor in the path; it streams by default.",
                self.chat, said, (_PROVIDER, IDEMPOTENCY_KEY), ProviderChatBody, errors,
            ),
            operation(
                "GET", "/v1/models", "listModels", "The actors as models.", self.list,
                {200: Answer("All of them.", ModelList)},
            ),
            operation(
                "GET", "/v1/models/{model:path}", "showModel", "One model.", self.show,
                {200: Answer("It can be asked for.", Model)}, (_MODEL,), errors=(404,),
            ),
        )  # fmt: skip

    async def list(self, request: Request) -> ASGIApp:
        return json_answer(ModelList([Model(actor.name, self._since) for actor in await self._transport.actors()]))

    async def show(self, request: Request) -> ASGIApp:
        name: str = request.path_params["model"]
        await self._actor(name)
        return json_answer(Model(name, self._since))

    async def complete(self, request: Request) -> ASGIApp:
        asked = read_request(await read_json(request), ChatBody)
        return await self._start(request, asked, str(asked.body.model), streams=bool(asked.body.stream))

    async def chat(self, request: Request) -> ASGIApp:
        provider: str = request.path_params["provider"]
        asked = read_request(await read_json(request), ProviderChatBody, provider=provider)
        return await self._start(request, asked, provider, streams=asked.body.stream is not False)

    async def _start(self, request: Request, asked: ChatRequest, name: str, *, streams: bool) -> ASGIApp:
        self._streams.check_open()
        actor = await self._actor(name)
        run = idempotent_id(request, None)
        meta = Meta(
            run=run or new_id(),
            actor=actor.name,
            input=encode_input(asked.input_for(actor.name, actor.input_schema)),
            owner_lease=self._streams.times.leave_grace,
            assumed=DECLARABLE,
        )
        head = await self._transport.start(meta)
        told = (meta.run, asked.body.model or name, head.meta.created)
        telling = Events(*told, include_usage=asked.includes_usage) if streams else Whole(*told)
        location = location_of(request, meta.run)
        repeatable, restarted = run is not None, head.attempt > 1
        return _Chat(self._streams, meta.run, telling, location, repeatable=repeatable, restarted=restarted)

    async def _actor(self, name: str) -> ActorInfo:
        """Who bears the name, else the default one. Raises `UnknownProducer`."""
        actors = {actor.name: actor for actor in await self._transport.actors()}
        actor = actors.get(name) or actors.get(self._default or "")
        if actor is None:
            there = ", ".join(sorted(actors)[:20]) or "none"
            raise UnknownProducer(f"no model is named {name[:80]!r} (there are: {there})")
        return actor


class _Chat:
    """The answer to one chat, whose run ends with it: who leaves cancels. Only when the request is `repeatable`, by its
    Idempotency-Key, the run goes on for a while: it may come again, and is then answered from the beginning."""

    def __init__(
        self,
        streams: Streams,
        run: str,
        telling: Events | Whole,
        location: str,
        *,
        repeatable: bool,
        restarted: bool,
    ) -> None:
        self._streams = streams
        self._run = run
        self._telling = telling
        self._location = location
        self._repeatable = repeatable
        self._restarted = restarted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        owner = spawn(renew(self._streams, self._run), f"loom-owner {self._run}")
        try:
            answer = await self._begun(scope, receive)
            if answer is not None:
                await answer(scope, receive, send)
        finally:
            goes_on = not (self._telling.run_ended or self._repeatable)
            leave = [spawn(self._leave(), f"loom-leave {self._run}")] if goes_on else []
            try:
                await cancel_and_wait(owner)
            finally:
                await wait_out(*leave)

    async def _leave(self) -> None:
        """Bounded: who leaves waits for it, even when cancelled."""
        try:
            async with asyncio.timeout(limits.OWNER_LEAVE):
                await self._streams.transport.cancel(self._run)
        except (LoomError, TimeoutError) as error:  # the lapsing lease cancels it
            log.debug("cancelling run %s: %r", self._run, error)

    # --- until there is a status ---

    async def _begun(self, scope: Scope, receive: Receive) -> ASGIApp | None:
        """What to answer; None if the client has left before."""
        task = spawn(self._answer(scope), f"loom-chat {self._run}")
        gone = spawn(wait_gone(receive), f"loom-chat-gone {self._run}")
        self._streams.open += 1
        try:
            await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
            return None if gone.done() else await task
        finally:
            self._streams.open -= 1
            await cancel_and_wait(task, gone)

    async def _answer(self, scope: Scope) -> ASGIApp:
        refuse = partial(openai_error, headers={"Location": self._location, "X-Request-Id": self._run})
        telling = self._telling
        try:
            self._streams.enter()
            call = self._stream(telling) if isinstance(telling, Events) else self._whole(telling)
            return await answer_of(call, scope, refuse)
        except asyncio.CancelledError:
            if not self._streams.closing:
                raise
            return refuse(Unavailable("the server is stopping"))
        finally:
            self._streams.leave()

    def _pages(self) -> AbstractAsyncContextManager[AsyncGenerator[Page, None]]:
        return aclosing(cast("AsyncGenerator[Page, None]", self._streams.transport.follow(self._run)))

    async def _stream(self, preview: Events) -> ASGIApp:
        """Its status waits for the first output, but not for ever: then comments say that somebody is there."""
        opening, first = HEARTBEAT, BEGINNING
        if self._restarted:
            self._telling = preview = preview.again(await self._retracted())
        try:
            async with asyncio.timeout(self._streams.times.first_output), self._pages() as pages:
                async for page in pages:
                    if _speaks(preview, page):
                        opening, first = b"", page if page.batches[0].first == 1 else BEGINNING
                        break
        except TimeoutError:
            pass
        if preview.error is not None and not preview.spoken:
            raise revive(preview.error)
        self._telling = events = preview.again()
        headers = (*EVENT_HEADERS, (b"x-request-id", self._run.encode()))
        viewing = Viewing(opening=opening, location=self._location, dialect=events, headers=headers)
        return EventStream(self._streams, self._run, first, viewing)

    async def _retracted(self) -> RetractedRanges:
        found = RetractedRanges()
        page = BEGINNING
        while True:
            page = await self._streams.transport.read(self._run, page.cursor, limit=limits.PAGE_CHUNKS, wait=0.0)
            for batch in page.batches:
                found.feed(batch)
            if page.caught_up:
                return found

    async def _whole(self, whole: Whole) -> ASGIApp:
        async with self._pages() as pages:
            async for page in pages:
                for batch in page.batches:
                    whole.feed(batch)
                if whole.ended:
                    break
                if not page.caught_up:
                    await asyncio.sleep(0)
        if whole.error is not None:
            raise revive(whole.error)
        return raw_json(whole.body(), headers={"Location": self._location, "X-Request-Id": self._run})


def _speaks(events: Events, page: Page) -> bool:
    """Whether the page says something of the answer, or that there is none."""
    return any(events.frames(batch) for batch in page.batches)  # up to the first

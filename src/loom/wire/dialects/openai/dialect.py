"""OpenAI's routes: chat completions, and the actors as models."""

from __future__ import annotations

from loom.wire.description import Answer, Parameter, StreamForm
from loom.wire.dialect import ActorCall, Catalog, Dialect, HttpRequest, Route, ShowCatalog, StartRun

from .answer import Events, Whole
from .errors import ApiErrorBody, refuse
from .request import ChatBody, ChatRequest, Completion, Model, ModelList, ProviderChatBody, read_request

__all__ = ["OPENAI"]

_PROVIDER = Parameter("path", "provider", "An actor; any other name goes to the app's default one.")
_MODEL = Parameter("path", "model", "The model, slashes and all.")
_EVENTS = StreamForm(
    "text/event-stream",
    {
        "type": "object",
        "required": ["data"],
        "properties": {
            "data": {"type": "string", "description": "A `chat.completion.chunk`, an error body, or `[DONE]`."}
        },
    },
)
_ANSWERS = {200: Answer("The answer, whole or as it comes.", Completion, ("Location", "X-Request-Id"), _EVENTS)}
_ERRORS = (404, 409, 429, 504, 507)


def _complete(request: HttpRequest) -> StartRun:
    asked = read_request(request.body, ChatBody)
    return _start(asked, str(asked.body.model), streams=bool(asked.body.stream))


def _chat(request: HttpRequest) -> StartRun:
    provider = request.path["provider"]
    asked = read_request(request.body, ProviderChatBody, provider=provider)
    return _start(asked, provider, streams=asked.body.stream is not False)


def _start(asked: ChatRequest, name: str, *, streams: bool) -> StartRun:
    model = asked.body.model or name

    def call(catalog: Catalog) -> ActorCall:
        actor = catalog.find(name, "model")
        return ActorCall(actor.name, asked.input_for(actor.name, actor.input_schema))

    def encoder(run: str, created: float) -> Events | Whole:
        if streams:
            return Events(run, model, created, include_usage=asked.includes_usage)
        return Whole(run, model, created)

    return StartRun(call, encoder, streams)


def _list(request: HttpRequest) -> ShowCatalog:
    return ShowCatalog(lambda catalog: ModelList([Model(actor.name, catalog.since) for actor in catalog.actors]))


def _show(request: HttpRequest) -> ShowCatalog:
    name = request.path["model"]

    def answer(catalog: Catalog) -> Model:
        catalog.find(name, "model")
        return Model(name, catalog.since)

    return ShowCatalog(answer)


OPENAI = Dialect(
    name="openai",
    summary="OpenAI's Chat Completions, for every client that takes a `base_url`.",
    routes=(
        Route(
            "POST", "/v1/chat/completions", "createChatCompletion", "A chat, for OpenAI's clients.", _complete,
            _ANSWERS, body=ChatBody, errors=_ERRORS,
        ),
        Route(
            "POST", "/api/{provider}/chat", "chat", "The same with the actor in the path; it streams by default.",
            _chat, _ANSWERS, (_PROVIDER,), ProviderChatBody, _ERRORS,
        ),
        Route(
            "GET", "/v1/models", "listModels", "The actors as models.", _list,
            {200: Answer("All of them.", ModelList)},
        ),
        Route(
            "GET", "/v1/models/{model:path}", "showModel", "One model.", _show,
            {200: Answer("It can be asked for.", Model)}, (_MODEL,), errors=(404,),
        ),
    ),
    refuse=refuse,
    error_body=ApiErrorBody,
)  # fmt: skip

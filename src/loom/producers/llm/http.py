"""What providers over HTTP have in common, on httpx2: the connection, its time-outs, retries, refusals.

It knows no provider: what one asks and how its answer reads is told by its subclass.
"""

from __future__ import annotations

import asyncio
import logging
import re
from abc import abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import NamedTuple, Protocol, TypedDict

import httpx2

from loom.backoff import repeated
from loom.model import limits
from loom.model.errors import (
    HandleClosed,
    InvalidInput,
    LimitExceeded,
    LoomError,
    RemoteProtocolError,
    StartOver,
    Unavailable,
    UsageError,
)
from loom.model.parts import Part
from loom.wire import json, sse
from loom.wire.urls import BAD_PROXY

from .ask import Ask
from .front import Model
from .redact import Redactor
from .refusals import Fault, Refusals, fault_of, refusal
from .schemas import OutputMode

__all__ = ["Connecting", "HttpModel", "Question", "Reading"]

AI_ERROR_BYTES = 64 << 10
"""What is read of a provider's error body, for its message."""

AI_CONNECTIONS = 1000
"""Connections to one provider; further calls wait for one. Ten workers' worth of runs, below descriptor limits."""

AI_CONNECT = 10.0
"""To reach a provider: across the world, TLS included."""

AI_KEPT_ALIVE = 1800.0
"""A provider that sends comments and pings, but nothing of its answer, is given up after so long: the slowest models
think unseen for less."""

AI_TRAILER = 5.0
"""After the finish reason: how long the usage count may take to follow."""

AI_ATTEMPTS = 4
"""Calls of a provider for one answer, the first included, as long as nothing was said."""

AI_BACKOFF = (0.5, 8.0)
"""First and longest pause between them, doubling and jittered."""

AI_RETRY_AFTER = 30.0
"""The longest pause that a provider may ask for; beyond it the caller is told at once."""

AI_RETRY_WITHIN = 120.0
"""No further call is made when the first lies this long back."""

_log = logging.getLogger("loom.llm")

_CLIENT_LOGGERS = [
    logging.getLogger(name)
    for name in ("httpx2", "httpcore2.connection", "httpcore2.http11", "httpcore2.proxy", "httpcore2.socks")
]
"""Loggers that write a server's own words: reason phrases, and for debugging headers."""

_PING = "ping"
"""An event with which some providers say, as others do with comments, that they are alive, and nothing else."""


class Reading(Protocol):
    """One answer as it comes in: `feed` it each event's data, read what it gives, ask for the `end`."""

    @property
    def done(self) -> bool:
        """The server has said that nothing follows."""
        ...

    @property
    def finished(self) -> bool:
        """The answer is complete, whatever may follow."""
        ...

    def feed(self, data: bytes, type: str = "message") -> list[Part]:
        """The parts that one event's data completes. Raises `RemoteProtocolError`, or what an error event means."""
        ...

    def whole(self, body: bytes) -> list[Part]:
        """The parts of an answer that came as one JSON document, though a stream was asked for. Raises as `feed`."""
        ...

    def end(self) -> list[Part]:
        """What is told last: tool calls, the finish reason, the usage. Raises `Unavailable` if the answer was cut."""
        ...


class Question(NamedTuple):
    """What is sent for one answer, and what reads it."""

    path: str
    body: bytes
    reading: Reading


class Connecting(TypedDict, total=False):
    """What every provider over HTTP takes, by keyword. Times in seconds."""

    api_key: str | None
    """Sent with each call, as the provider has it; None: nothing is."""
    model: str | None
    """Whom calls that name no model ask."""
    connect: float
    """The longest way to a connection."""
    silence: float
    """The longest pause within an answer, and before it, without so much as a comment or ping."""
    attempts: int
    """Calls for one answer, the first included."""
    backoff: tuple[float, float]
    """The first and the longest pause between them."""


class HttpModel(Model):
    """A model behind a provider's HTTP interface.

    A failed call is repeated, with jittered pauses and minding ``Retry-After``, only while nothing was given on; an
    answer that breaks off later raises `Unavailable`, and so does a provider silent for `silence` seconds, or half an
    hour long only alive. Cancelling the task or closing the iterator closes the connection at once. The key appears in
    no message, log or repr, also where the server sends it back. A server that is asked to go on from a beginning and
    refuses (`InvalidInput`) is a `StartOver`. A structured answer is asked for in the first of the `modes` that the
    server takes, which is remembered for each model.

    Belongs to one event loop; connects when first asked. Raises `UsageError` for a URL or key that cannot be one.
    """

    refusals: Refusals
    """How it refuses; also the name of its key's variable."""
    base_hint: str
    """What its base URLs look like, for who got it wrong."""
    models_path: str
    """Where its models are listed."""
    modes: tuple[OutputMode, ...]
    """The ways to ask for a structured answer, the best first."""

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None = None,
        model: str | None = None,
        connect: float = AI_CONNECT,
        silence: float = limits.AI_SILENCE,
        attempts: int = AI_ATTEMPTS,
        backoff: tuple[float, float] = AI_BACKOFF,
    ) -> None:
        self._url = _check_url(base_url, self.refusals.key)
        self._key = _check_key(api_key)
        self._redact = Redactor(self._key)
        self._log_filter = self._redact.record  # one object, to be found again
        self._mode_of: dict[str, OutputMode] = {}  # of each model, what it took
        self._last_mode: dict[str, OutputMode] = {}  # what it took last, not learned yet
        self._model = model
        self._timeout = httpx2.Timeout(silence, connect=connect)
        self._silence = silence
        self._attempts = attempts
        self._backoff = backoff
        self._client: httpx2.AsyncClient | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._place}>"

    @abstractmethod
    def _authority(self) -> dict[str, str]:
        """The headers that go with each request; among them, if there is one, the key."""

    @abstractmethod
    async def _named(self, ask: Ask) -> str:
        """The model that is asked. May ask the server for its models first."""

    @abstractmethod
    async def _question(self, ask: Ask, mode: OutputMode) -> Question:
        """What is sent for `ask`. May ask the server something first."""

    @property
    def _place(self) -> str:
        """The server as messages name it: without a query, which may hold secrets."""
        return str(self._url.copy_with(query=None))

    async def answer(self, ask: Ask) -> AsyncGenerator[Part, None]:
        try:
            first, more = await self._begin(ask)
        except InvalidInput as error:
            if not ask.continues:
                raise
            raise StartOver(f"{self._place} does not go on from an answer that was begun: {error.message}") from None
        async with aclosing(more):
            for part in first:
                yield part
            async for parts in more:
                for part in parts:
                    yield part

    async def aclose(self) -> None:
        self._closed = True
        if self._client is not None:
            await self._client.aclose()
            for logger in _CLIENT_LOGGERS:
                logger.removeFilter(self._log_filter)

    async def check(self) -> str:
        """Ask whether the server answers and takes the key, for which no token is spent; returns what is to be said.
        Not repeated. Raises what a call raises."""
        try:
            async with self._call("GET", self.models_path):
                pass
        except InvalidInput:  # a server that has no such list answers, too
            pass
        return f"{self._place} answers ({'with a key' if self._key else 'no key'})"

    async def _begin(self, ask: Ask) -> tuple[list[Part], AsyncGenerator[list[Part], None]]:
        """The first parts of an answer, and what follows them. Up to here, and no further, calls are repeated."""
        return await repeated(
            lambda: self._begin_once(ask),
            _may_pass,
            attempts=self._attempts,
            within=AI_RETRY_WITHIN,
            backoff=self._backoff,
            log=_log,
        )

    async def _begin_once(self, ask: Ask) -> tuple[list[Part], AsyncGenerator[list[Part], None]]:
        """One call; of a structured answer one in each mode, until the server takes one.

        A server that knows no `json_schema` may call it its own failure (llama-cpp-python and older llama.cpp: 500). It
        is an outage only if the last mode, a plain request, fails in the same way.
        """
        if ask.schema is None:
            return await self._first(ask, self.modes[0])
        model = await self._named(ask)
        known = self._mode_of.get(model)
        refused: list[LoomError] = []
        for mode in self.modes[self.modes.index(known) if known else 0 :]:
            try:
                begun = await self._first(ask, mode)
            except LoomError as error:
                if not _refuses_mode(error, known=mode == known):
                    raise
                refused.append(error)
            else:
                self._learn(model, mode, refused)
                return begun
        raise next((error for error in refused if not error.retryable), refused[0])

    def _learn(self, model: str, mode: OutputMode, refused: list[LoomError]) -> None:
        """Remembers the mode that `model` took. A failure that does not name the mode may have been an outage that
        passed: a mode behind such ones is remembered when it was the one to be taken twice in a row."""
        if self._last_mode.get(model) == mode or all(map(_is_about_mode, refused)):
            self._mode_of.setdefault(model, mode)
        self._last_mode[model] = mode

    async def _first(self, ask: Ask, mode: OutputMode) -> tuple[list[Part], AsyncGenerator[list[Part], None]]:
        more = self._attempt(ask, mode)
        return await anext(more), more

    async def _attempt(self, ask: Ask, mode: OutputMode) -> AsyncGenerator[list[Part], None]:
        """One call: the parts of its answer as they come, several together where they arrived so; the end last."""
        path, body, answer = await self._question(ask, mode)
        async with self._call("POST", path, body) as response:
            if _is_stream(response):
                parts = self._stream(response, answer, _Received(self._url, response.status_code))
            else:
                parts = self._whole(response, answer)
            async with aclosing(parts):
                async for some in parts:
                    yield some
            yield answer.end()

    async def _stream(
        self, response: httpx2.Response, answer: Reading, received: _Received
    ) -> AsyncGenerator[list[Part], None]:
        decoder = sse.Decoder(limit=limits.AI_EVENT_BYTES)
        blocks = response.aiter_bytes()
        until, finished = _in(AI_KEPT_ALIVE), False  # comments may come for ever
        while not answer.done and (block := await self._next_block(blocks, answer, until, received)):
            heard = False
            received.bytes += len(block)
            for event in decoder.feed(block):
                heard = heard or event.type != _PING
                received.events += 1
                if parts := answer.feed(event.data, event.type):
                    received.parts += len(parts)
                    yield parts
            if answer.finished and not finished:
                until, finished = _in(AI_TRAILER), True
            elif heard and not finished:
                until = _in(AI_KEPT_ALIVE)
        # The body's end: only then can the connection be used again.
        await self._next_block(blocks, answer, _in(limits.CLOSING) if answer.done else until, received)
        if not answer.finished:
            raise self._cut(received)

    async def _next_block(
        self, blocks: AsyncIterator[bytes], answer: Reading, until: float, received: _Received
    ) -> bytes:
        """The next bytes; b"" at the end, and when an answer that is finished does not go on `until` then. Raises
        `Unavailable` for one that is not."""
        try:
            async with asyncio.timeout_at(until):
                async for block in blocks:
                    if block:
                        return block
        except (httpx2.TransportError, httpx2.DecodingError, TimeoutError) as error:
            if not (answer.finished or answer.done):
                raise self._unreachable(error, received) from None
        return b""

    async def _whole(self, response: httpx2.Response, answer: Reading) -> AsyncGenerator[list[Part], None]:
        kind = response.headers.get("content-type", "")
        if "json" not in kind:
            raise RemoteProtocolError(
                f"{self._place} answered {response.status_code} with {kind[:80]!r}, not an event stream: "
                "is the base URL right?"
            )
        if parts := answer.whole(await self._body(response, limits.AI_BODY_BYTES)):
            yield parts

    async def _body(self, response: httpx2.Response, most: int) -> bytes:
        body = bytearray()
        try:
            async with asyncio.timeout(AI_KEPT_ALIVE):
                async for block in response.aiter_bytes():
                    body += block
                    if len(body) > most:
                        raise LimitExceeded(f"the provider's answer is larger than {most} bytes", code="too_large")
        except (httpx2.TransportError, httpx2.DecodingError, TimeoutError) as error:
            received = _Received(self._url, response.status_code)
            received.bytes = len(body)
            raise self._unreachable(error, received) from None
        return bytes(body)

    @asynccontextmanager
    async def _call(self, method: str, path: str, body: bytes | None = None) -> AsyncIterator[httpx2.Response]:
        """A successful answer's head; its body is closed on the way out. Raises what the refusal or failure is. Errors
        leave the block without the key."""
        try:
            async with self._response(method, path, body) as response:
                yield response
        except LoomError as error:
            raise self._redact.error(error) from None

    @asynccontextmanager
    async def _response(self, method: str, path: str, body: bytes | None) -> AsyncIterator[httpx2.Response]:
        url = self._url.copy_with(path=f"{self._url.path.rstrip('/')}/{path}")
        request = self._http().build_request(method, url, content=body)
        try:
            response = await self._http().send(request, stream=True)
        except httpx2.TransportError as error:
            raise self._unreachable(error) from None
        try:
            if not response.is_success:
                raise await self._refused(response)
            yield response
        finally:
            await response.aclose()

    async def _refused(self, response: httpx2.Response) -> LoomError:
        if response.is_redirect:
            return RemoteProtocolError(f"{self._place} redirects elsewhere: give the base URL that it redirects to")
        try:
            fault = fault_of(json.decode(json.mended(await self._body(response, AI_ERROR_BYTES))), self.refusals)
        except LoomError:  # the status says enough
            fault = Fault()
        if response.status_code == 404 and not fault.message:
            fault = Fault(f"there is no {response.request.url.path} at {self._url.host}: {self.base_hint}")
        return refusal(response.status_code, fault, self.refusals, response.headers)

    def _unreachable(self, error: Exception, received: _Received | None = None) -> Unavailable:
        """The error of a connection that failed: names the reason, and how much of an answer had come."""
        if isinstance(error, httpx2.ReadTimeout):
            reason = f"it was silent for {self._silence:g} s"
        elif isinstance(error, TimeoutError):
            reason = f"it sent nothing of its answer for {AI_KEPT_ALIVE:g} s"
        else:
            reason = _reason_of(error)
        if received is None:
            return Unavailable(f"{self._place}: {reason}", details={"host": _host(self._url)})
        hint = "" if isinstance(error, httpx2.TimeoutException | TimeoutError) else received.hint
        return Unavailable(f"{self._place}: {reason}, {received}{hint}", details=received.details)

    def _cut(self, received: _Received) -> Unavailable:
        what = "broke off its answer" if received.parts else "gave an empty answer"
        return Unavailable(f"{self._place} {what}, {received}{received.hint}", details=received.details)

    def _http(self) -> httpx2.AsyncClient:
        if self._closed:
            raise HandleClosed("this model was closed")
        if self._client is None:
            try:
                self._client = httpx2.AsyncClient(
                    headers={**_HEADERS, **self._authority()},
                    timeout=self._timeout,
                    limits=httpx2.Limits(max_connections=AI_CONNECTIONS),
                )
            except (ValueError, httpx2.InvalidURL):  # whose words are parts of the URL
                raise UsageError(BAD_PROXY) from None
            for logger in _CLIENT_LOGGERS:
                logger.addFilter(self._log_filter)
        return self._client


class _Received:
    """Counts how much of an answer has come: all that is known of one that was cut."""

    def __init__(self, url: httpx2.URL, status: int) -> None:
        self._host = _host(url)
        self._status = status
        self.bytes = 0
        self.events = 0
        self.parts = 0

    def __str__(self) -> str:
        return f"after {self.events} events and {self.bytes} bytes (status {self._status})"

    @property
    def hint(self) -> str:
        return "" if self.parts else ": some servers refuse a prompt that is too long so"

    @property
    def details(self) -> dict[str, str | int]:
        return {"host": self._host, "status": self._status, "events": self.events, "bytes": self.bytes}


def _host(url: httpx2.URL) -> str:
    return url.netloc.decode("ascii")


def _reason_of(error: BaseException) -> str:
    """The transport's reason. Its own text is often empty: then that of the error which it comes from."""
    cause: BaseException | None = error
    while cause is not None:
        if text := str(cause).strip():
            return text
        cause = cause.__cause__ or cause.__context__
    return _REASONS.get(type(error).__name__, type(error).__name__)


_REASONS = {"ReadError": "the connection was broken off", "WriteError": "the connection was broken off"}

_ON_MODE = re.compile(
    r"response_format|json.?(schema|object)|output_(config|format)|structured.output|guided|grammar|tool", re.IGNORECASE
)
"""Words of a refusal that is about the way in which a structured answer was asked for."""


def _refuses_mode(error: LoomError, *, known: bool) -> bool:
    """True if the server may take the same question in another mode: it refuses the request (400, 422) or calls it a
    failure of its own (500, 501). Of a mode that it has taken before (`known`) its words must name the mode."""
    status = error.details.get("status")
    named = _ON_MODE.search(error.message) is not None
    if isinstance(error, InvalidInput):
        return error.code != "content_filter" and (named or (status in (400, 422) and not known))
    return isinstance(error, Unavailable) and status in (500, 501) and (named or not known)


def _is_about_mode(error: LoomError) -> bool:
    """True if a refusal of a mode, by `_refuses_mode`, can have no other reason."""
    return isinstance(error, InvalidInput) or _ON_MODE.search(error.message) is not None


def _in(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds


def _may_pass(error: LoomError) -> bool:
    """Whether to call again after it."""
    return error.retryable and float(error.details.get("retry_after", 0.0)) <= AI_RETRY_AFTER


def _is_stream(response: httpx2.Response) -> bool:
    kind = response.headers.get("content-type", "text/event-stream")
    return bool(kind.partition(";")[0].strip().lower() == "text/event-stream")


_HEADERS = {
    "accept": "application/json, text/event-stream",
    "accept-encoding": "identity",  # a compressor would hold tokens back
    "content-type": "application/json",
    "user-agent": "loom-streams",
}


def _check_url(text: str, key: str) -> httpx2.URL:
    """The URL itself is not shown: it may hold a password. What may have named it is."""
    variable = f"{key.removesuffix('API_KEY')}BASE_URL, where the environment names it"
    try:
        url = httpx2.URL(text.strip())
    except httpx2.InvalidURL:
        raise UsageError(f"the base URL of the model provider is no URL ({variable})") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise UsageError(
            f"the base URL of the model provider must begin with http:// or https:// and a host ({variable})"
        )
    if url.userinfo or b"@" in url.raw_path:  # a password with a slash makes a path; a path's own @ is written %40
        raise UsageError(f"the base URL of the model provider must not hold credentials: give the key as {key}")
    return url


def _check_key(key: str | None) -> str:
    """Checked here, because a refused header would be shown whole in the error further down."""
    key = (key or "").strip()
    if not (key.isascii() and key.isprintable()):
        raise UsageError("the model provider's key holds characters that no key has")
    return key

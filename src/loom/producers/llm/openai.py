"""Any server that speaks OpenAI's Chat Completions, over httpx2: the connection, its time-outs, its retries.

What is said on the line is in `completions` and `refusals`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from urllib.parse import urlsplit

import httpx2

from loom.engine.backoff import repeated
from loom.model import limits
from loom.model.errors import (
    HandleClosed,
    InvalidInput,
    LimitExceeded,
    LoomError,
    RemoteProtocolError,
    Unavailable,
    UsageError,
)
from loom.model.parts import Part
from loom.wire import json, sse

from .completions import Answer, request_body
from .front import Ask, Model
from .refusals import Fault, fault_of, refusal

__all__ = ["OPENAI_URL", "OpenAICompatible"]

OPENAI_URL = "https://api.openai.com/v1"

_log = logging.getLogger("loom.llm")


class OpenAICompatible(Model):
    """A model behind OpenAI's Chat Completions: OpenAI, Cloudflare Workers AI, vLLM, Ollama, llama.cpp.

    A failed call is repeated, with jittered pauses and minding ``Retry-After``, only while nothing was given on; an
    answer that breaks off later raises `Unavailable`, and so does a provider silent for `silence` seconds. Cancelling
    the task or closing the iterator closes the connection at once. The key appears in no message, log or repr.

    Without `model`, and when a call names none, it is the first that the server lists. Belongs to one event loop;
    connects when first asked. Raises `UsageError` for a URL or key that cannot be one.
    """

    def __init__(
        self,
        base_url: str = OPENAI_URL,
        *,
        api_key: str | None = None,
        model: str | None = None,
        connect: float = limits.AI_CONNECT,
        silence: float = limits.AI_SILENCE,
        attempts: int = limits.AI_ATTEMPTS,
        backoff: tuple[float, float] = limits.AI_BACKOFF,
    ) -> None:
        self._url = _check_url(base_url)
        self._key = _check_key(api_key)
        self._model = model
        self._timeout = httpx2.Timeout(silence, connect=connect)
        self._silence = silence
        self._attempts = attempts
        self._backoff = backoff
        self._client: httpx2.AsyncClient | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"<OpenAICompatible {self._place}>"

    @property
    def _place(self) -> str:
        """The server as messages name it: without a query, which may hold secrets."""
        return str(self._url.copy_with(query=None))

    async def answer(self, ask: Ask) -> AsyncGenerator[Part, None]:
        first, more = await self._begin(ask)
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

    async def _begin(self, ask: Ask) -> tuple[list[Part], AsyncGenerator[list[Part], None]]:
        """The first parts of an answer, and what follows them. Up to here, and no further, calls are repeated."""

        async def once() -> tuple[list[Part], AsyncGenerator[list[Part], None]]:
            more = self._attempt(ask)
            return await anext(more), more

        return await repeated(
            once,
            _may_pass,
            attempts=self._attempts,
            within=limits.AI_RETRY_WITHIN,
            backoff=self._backoff,
            log=_log,
        )

    async def _attempt(self, ask: Ask) -> AsyncGenerator[list[Part], None]:
        """One call: the parts of its answer as they come, several together where they arrived so; the end last."""
        model = ask.model or self._model or await self._first_listed()
        body = request_body(ask, model, limit_field=_limit_field(self._url.host))
        answer = Answer(self._key)
        async with self._call("POST", "chat/completions", body) as response:
            parts = self._stream(response, answer) if _is_stream(response) else self._whole(response, answer)
            async with aclosing(parts):
                async for some in parts:
                    yield some
        yield answer.end()

    async def _stream(self, response: httpx2.Response, answer: Answer) -> AsyncGenerator[list[Part], None]:
        decoder = sse.Decoder(limit=limits.AI_EVENT_BYTES)
        blocks = response.aiter_bytes()
        while not answer.done and (block := await self._next_block(blocks, answer)):
            for event in decoder.feed(block):
                if parts := answer.feed(event.data, event.type):
                    yield parts
        await self._next_block(blocks, answer)  # the body's end: only then can the connection be used again

    async def _next_block(self, blocks: AsyncIterator[bytes], answer: Answer) -> bytes:
        """The next bytes; b"" at the end, and whenever an answer that is finished does not go on."""
        patience = limits.AI_TRAILER if answer.finished else None
        try:
            async with asyncio.timeout(limits.CLOSING if answer.done else patience):
                async for block in blocks:
                    if block:
                        return block
        except (httpx2.TransportError, httpx2.DecodingError, TimeoutError) as error:
            if not (answer.finished or answer.done):
                raise self._unreachable(error) from None
        return b""

    async def _whole(self, response: httpx2.Response, answer: Answer) -> AsyncGenerator[list[Part], None]:
        kind = response.headers.get("content-type", "")
        if "json" not in kind:
            raise RemoteProtocolError(
                f"{self._place} answered with {kind[:80]!r}, not an event stream: is the base URL right?"
            )
        if parts := answer.whole(await self._body(response, limits.AI_BODY_BYTES)):
            yield parts

    async def _body(self, response: httpx2.Response, most: int) -> bytes:
        body = bytearray()
        try:
            async for block in response.aiter_bytes():
                body += block
                if len(body) > most:
                    raise LimitExceeded(f"the provider's answer is larger than {most} bytes", code="too_large")
        except (httpx2.TransportError, httpx2.DecodingError) as error:
            raise self._unreachable(error) from None
        return bytes(body)

    @asynccontextmanager
    async def _call(self, method: str, path: str, body: bytes | None = None) -> AsyncIterator[httpx2.Response]:
        """A successful answer's head; its body is closed on the way out. Raises what the refusal or failure is."""
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
            fault = fault_of(json.decode(await self._body(response, limits.AI_ERROR_BYTES)))
        except LoomError:  # the status says enough
            fault = Fault()
        if response.status_code == 404 and not fault.message:
            fault = Fault(f"there is no {response.request.url.path} at {self._url.host}: base URLs often end in /v1")
        return refusal(response.status_code, fault, response.headers, secret=self._key)

    def _unreachable(self, error: Exception) -> Unavailable:
        if isinstance(error, httpx2.ReadTimeout):
            return Unavailable(f"{self._place} was silent for {self._silence:g} s")
        return Unavailable(f"{self._place}: {error or type(error).__name__}")

    def _http(self) -> httpx2.AsyncClient:
        if self._closed:
            raise HandleClosed("this model was closed")
        if self._client is None:
            self._client = httpx2.AsyncClient(
                headers=_headers(self._key),
                timeout=self._timeout,
                limits=httpx2.Limits(max_connections=limits.AI_CONNECTIONS),
            )
        return self._client

    async def _first_listed(self) -> str:
        """The server's first model (vLLM and llama.cpp serve one), asked for once."""
        unnamed = "name a model: model=, or OPENAI_MODEL"
        if self._url.host == urlsplit(OPENAI_URL).hostname:
            raise UsageError(f"{unnamed}; {self._place} has many")
        try:
            async with self._call("GET", "models") as response:
                listed = json.decode(await self._body(response, limits.AI_BODY_BYTES))
            self._model = str(listed["data"][0]["id"])
        except (RemoteProtocolError, InvalidInput, LookupError, TypeError):
            raise UsageError(f"{unnamed}; {self._place} lists none") from None
        return self._model


def _may_pass(error: LoomError) -> bool:
    """Whether to call again after it."""
    return error.retryable and float(error.details.get("retry_after", 0.0)) <= limits.AI_RETRY_AFTER


def _is_stream(response: httpx2.Response) -> bool:
    kind = response.headers.get("content-type", "text/event-stream")
    return bool(kind.partition(";")[0].strip().lower() == "text/event-stream")


def _headers(key: str) -> dict[str, str]:
    headers = {
        "accept": "application/json, text/event-stream",
        "accept-encoding": "identity",  # a compressor would hold tokens back
        "content-type": "application/json",
        "user-agent": "loom-streams",
    }
    return {**headers, "authorization": f"Bearer {key}"} if key else headers


def _limit_field(host: str) -> str:
    """OpenAI's newer models refuse `max_tokens`; most other servers know nothing else."""
    return "max_completion_tokens" if host.endswith((".openai.com", ".openai.azure.com")) else "max_tokens"


def _check_url(text: str) -> httpx2.URL:
    try:
        url = httpx2.URL(text.strip())
    except httpx2.InvalidURL:
        raise UsageError("the base URL of the model provider is no URL") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise UsageError("the base URL of the model provider must begin with http:// or https:// and a host")
    if url.userinfo:
        raise UsageError("the base URL of the model provider must not hold credentials: give the key as OPENAI_API_KEY")
    return url


def _check_key(key: str | None) -> str:
    """Checked here, because a refused header would be shown whole in the error further down."""
    key = (key or "").strip()
    if not (key.isascii() and key.isprintable()):
        raise UsageError("the model provider's key holds characters that no key has")
    return key

"""Reading requests: bodies within bounds, query parameters, cursors. What does not fit raises, naming the field."""

from __future__ import annotations

import asyncio
import hashlib
import re
from typing import Any, TypeVar

from msgspec import UNSET
from starlette.requests import Request

from loom.model import limits
from loom.model.cursor import Cursor
from loom.model.errors import (
    InvalidInput,
    LimitExceeded,
    LogNotFound,
    RemoteProtocolError,
    UsageError,
)
from loom.model.names import check_id
from loom.model.options import OPTIONS, Options, settled_value
from loom.wire.duration import parse_duration
from loom.wire.headers import OWS
from loom.wire.json import decode_as
from loom.wire.option_text import QUERY, option_in

__all__ = [
    "CALLER",
    "ClientGone",
    "check_accepts_events",
    "check_run",
    "header",
    "idempotent_id",
    "query_cursor",
    "query_duration",
    "query_flag",
    "query_int",
    "query_name",
    "query_option",
    "query_options",
    "read_body",
    "read_json",
    "resume_at",
    "run_in_path",
]

T = TypeVar("T")

CALLER = "loom.caller"
"""Scope entry of an admitted request: the digest of its API key; empty where no key is needed."""

_JSON = re.compile(r'application/(?:[\w.+-]+\+)?json\s*(?:;\s*charset="?utf-8"?\s*)?', re.IGNORECASE | re.ASCII)
_SF_STRING = re.compile(r'"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"')
_PLAIN_KEY = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")
_BLANKS = OWS.decode()
_TRUE, _FALSE = ("", "1", "true"), ("0", "false")


class ClientGone(Exception):
    """The client left before it had said all: there is nobody to answer."""


# --- bodies ----------------------------------------------------------------------------------------------------------


async def read_body(request: Request, type: type[T]) -> T:
    """The body as `type`; its default when there is none.

    Raises `LimitExceeded` (413), `RemoteProtocolError` (400 not JSON or too deep, 408 too slow, 415 not said to be
    JSON), `InvalidInput` (422) naming the field.
    """
    return decode_as(await read_json(request), type)


async def read_json(request: Request) -> bytes:
    """The body, said to be JSON but not looked at; ``{}`` when there is none. Raises as `read_body`."""
    data = await _read(request)
    if data or header(request, "content-type"):
        _check_type(request)
    return data or b"{}"


async def _read(request: Request) -> bytes:
    most = limits.BODY_BYTES if "expect" in request.headers else limits.DISCARD_BYTES  # who asks first, has sent none
    if int(request.headers.get("content-length", 0)) > most:
        raise _too_large()
    try:
        async with asyncio.timeout(limits.BODY_TIME):
            return await _gather(request)
    except TimeoutError:
        raise RemoteProtocolError("the body came too slowly", code="request_timeout") from None


async def _gather(request: Request) -> bytes:
    """A body that is too large is read all the same, and dropped: closing on what is unread would reset the
    connection, and the answer with it (RFC 9112, section 9.6)."""
    body = bytearray()
    size = 0
    more = True
    while more and size <= limits.DISCARD_BYTES:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        piece = message.get("body", b"")
        size += len(piece)
        if size <= limits.BODY_BYTES:
            body += piece
        more = message.get("more_body", False)
    if size > limits.BODY_BYTES:
        raise _too_large()
    return bytes(body)


def _too_large() -> LimitExceeded:
    return LimitExceeded(f"a body may have at most {limits.BODY_BYTES} bytes", code="too_large")


def _check_type(request: Request) -> None:
    """Only what says so is read as JSON: other types can be sent by any page without the browser asking first."""
    given = header(request, "content-type")
    if _JSON.fullmatch(given) is None:
        raise RemoteProtocolError(
            f"Content-Type: application/json is needed, not {given[:80]!r}", code="unsupported_media_type"
        )


# --- headers and paths -----------------------------------------------------------------------------------------------


def header(request: Request, name: str) -> str:
    """A header's value without surrounding blanks; empty if absent."""
    return request.headers.get(name, "").strip(_BLANKS)


def check_accepts_events(request: Request) -> None:
    """Raise `RemoteProtocolError` (406) when the client says that it takes no event stream."""
    accept = header(request, "accept")
    if not accept:
        return
    for part in accept.split(","):
        kind, *parameters = (piece.strip().lower() for piece in part.split(";"))
        refused = any(re.fullmatch(r"q=0(?:\.0*)?", parameter) for parameter in parameters)
        if kind in ("text/event-stream", "text/*", "*/*") and not refused:
            return
    raise RemoteProtocolError("this is an event stream: Accept: text/event-stream", code="not_acceptable")


def idempotent_id(request: Request, id: str | None) -> str | None:
    """The run's id: as given, or the one that an ``Idempotency-Key`` stands for (draft-ietf-httpapi-idempotency-key).

    Raises `InvalidInput` when both are given, or the key is none: a quoted string of the draft, or plain ASCII.
    """
    given = request.headers.getlist("idempotency-key")
    if not given:
        return id
    if id is not None or len(given) > 1:
        raise InvalidInput(
            "one name for one run: either an id or one Idempotency-Key", details={"field": "Idempotency-Key"}
        )
    key = _plain_key(given[0].strip(_BLANKS))
    caller: bytes = request.scope.get(CALLER, b"")  # callers that choose the same key get runs of their own
    return "k-" + hashlib.blake2b(key.encode(), key=caller, digest_size=20).hexdigest()


def _plain_key(text: str) -> str:
    quoted = _SF_STRING.fullmatch(text)
    key = re.sub(r"\\(.)", r"\1", quoted[1]) if quoted else text
    fits = 0 < len(key) <= limits.IDEMPOTENCY_KEY_LENGTH
    if not fits or not (quoted or _PLAIN_KEY.fullmatch(key)):
        raise InvalidInput(
            f"Idempotency-Key: 1 to {limits.IDEMPOTENCY_KEY_LENGTH} printable ASCII characters",
            details={"field": "Idempotency-Key"},
        )
    return key


def run_in_path(request: Request) -> str:
    """The run that the path names. Raises `LogNotFound` for what no run can be called."""
    return check_run(request.path_params["id"])


def check_run(run: str) -> str:
    """`run`. Raises `LogNotFound` for what no run can be called."""
    try:
        return check_id(run)
    except InvalidInput:
        raise LogNotFound(f"no run {run[:80]!r}") from None


# --- query -----------------------------------------------------------------------------------------------------------


def query_int(request: Request, name: str, default: int, most: int) -> int:
    """A whole number from 1 to `most`. Raises `UsageError`."""
    text = request.query_params.get(name)
    if text is None:
        return default
    if re.fullmatch(r"[0-9]{1,9}", text, re.ASCII) is None or not 1 <= int(text) <= most:
        raise _bad(name, text, f"a whole number from 1 to {most}")
    return int(text)


def query_name(request: Request, name: str) -> str | None:
    """An actor's name, or what else is called like one. Raises `UsageError`."""
    text = request.query_params.get(name)
    if text is None:
        return None
    try:
        return check_id(text, name)
    except InvalidInput as error:
        raise UsageError(error.message, details=error.details) from None


def query_options(request: Request) -> Options:
    """The options of a start that may stand in a query. Raises `UsageError`."""
    return Options.of({name: query_option(request, name) for name, option in OPTIONS.items() if option.query})


def query_option(request: Request, name: str) -> Any:
    """The option's value, checked; `UNSET` if it is not there. Raises `UsageError`."""
    option = OPTIONS[name]
    word = option.word or name
    texts = request.query_params.getlist(word)
    if not texts:
        return UNSET
    try:
        return settled_value(name, option_in(option.kind, texts, QUERY, word))
    except InvalidInput as error:
        raise UsageError(error.message, details={"field": word}) from None


def query_flag(request: Request, name: str, default: bool) -> bool:
    """``?name``, ``?name=1`` or ``?name=true``; ``?name=0`` or ``?name=false``. Raises `UsageError`."""
    text = request.query_params.get(name)
    if text is None:
        return default
    if text not in _TRUE + _FALSE:
        raise _bad(name, text, "1 or 0")
    return text in _TRUE


def query_duration(request: Request, name: str, most: float) -> float:
    """Seconds, at most `most`; 0 if absent. Raises `UsageError`."""
    text = request.query_params.get(name)
    return 0.0 if text is None else min(parse_duration(text, name), most)


def query_cursor(request: Request) -> Cursor | None:
    """``?after=``; None is the beginning. Raises `UsageError`."""
    text = request.query_params.get("after")
    return Cursor.parse(text) if text else None


def resume_at(request: Request, run: str, after: str | None) -> Cursor | None:
    """Where a reader of `run` goes on, which asked for what is behind `after`. Raises `UsageError`.

    The header wins: an EventSource repeats its URL, with `after` as it was, and tells there what it has seen since. Ids
    that name the run (``<run>:<cursor>``) are understood, too.
    """
    if last := header(request, "last-event-id"):
        cursor = last.removeprefix(f"{run}:")
        return Cursor.parse(cursor, "Last-Event-ID") if cursor else None
    return Cursor.parse(after) if after else None


def _bad(name: str, text: str, expected: str) -> UsageError:
    return UsageError(f"{name}: {text[:80]!r} is not {expected}", details={"field": name})

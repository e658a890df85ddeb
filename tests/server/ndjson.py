"""A small dialect from outside the package: texts as lines of JSON, each with the cursor behind it.

``POST /lines/{actor}`` starts a run with the body's ``text`` and streams it, unless ``?stream=0``;
``GET /lines/runs/{run}?after=CURSOR`` reads on, of the resumable one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import msgspec

from loom.model.chunk import Batch
from loom.model.cursor import Cursor
from loom.model.errors import ErrorInfo, code_of
from loom.model.retraction import Fold
from loom.wire.description import Answer, Parameter, StreamForm
from loom.wire.dialect import (
    ActorCall,
    Catalog,
    Dialect,
    Encoder,
    FollowRun,
    HttpRequest,
    Refusal,
    Route,
    ShowCatalog,
    StartRun,
)
from loom.wire.dialects.lines import marker_of, read_line
from loom.wire.json import decode, decode_as, encode

__all__ = ["ndjson"]


class Body(msgspec.Struct):
    """What is asked."""

    text: str


class Names(msgspec.Struct):
    """The actors."""

    names: list[str]


class Fault(msgspec.Struct):
    """An error, as an answer or as the last line."""

    fault: str
    code: str


class Lines:
    """One run as lines."""

    headers: ClassVar[Mapping[str, str]] = {"Content-Type": "application/x-ndjson"}
    heartbeat = b"\n"

    def __init__(self, after: Cursor | None = None) -> None:
        self.spoken = False
        self.ended = False
        self.error: ErrorInfo | None = None
        self._fold = Fold()
        self._sent: dict[str | None, int] = {None: after.seq} if after else {}  # by an earlier answer

    def frames(self, batch: Batch) -> bytes:
        seqs = enumerate(batch.lines(), batch.first)
        return b"".join([self._line(Cursor(batch.epoch, seq), line) for seq, line in seqs if not self.ended])

    def fault(self, error: ErrorInfo) -> bytes:
        self.ended, self.error = True, error
        return encode(Fault(error.message, error.code)) + b"\n"

    def _line(self, at: Cursor, line: bytes) -> bytes:
        chunk = read_line(line)
        marker = marker_of(at.seq, chunk)
        if marker is not None:
            gone = self._fold.feed(marker)
            lost = gone is not None and gone.covers_any(self._sent)
            return self.fault(ErrorInfo("run_restarted", "it began anew", True)) if lost else b""
        if chunk.type == "error":
            return self.fault(chunk.error or ErrorInfo("run_failed", ""))
        if chunk.type == "complete":
            self.ended = True
            return b'{"done":true}\n'
        if chunk.type != "data":
            return b""
        self.spoken = True
        self._sent[chunk.source] = at.seq
        return encode({"at": str(at), "text": decode(bytes(chunk.data))}) + b"\n"


def encoder(run: str, created: float) -> Encoder:
    return Lines()


def start(request: HttpRequest) -> StartRun:
    text = decode_as(request.body, Body).text
    name = request.path["actor"]

    def call(catalog: Catalog) -> ActorCall:
        return ActorCall(catalog.find(name).name, {"prompt": text})

    return StartRun(call, encoder, request.query.get("stream") != "0")


def follow(request: HttpRequest) -> FollowRun:
    text = request.query.get("after")
    after = Cursor.parse(text) if text else None
    return FollowRun(request.path["run"], after, lambda run, created: Lines(after))


def names(request: HttpRequest) -> ShowCatalog:
    return ShowCatalog(lambda catalog: Names([actor.name for actor in catalog.actors]))


def refuse(error: ErrorInfo) -> Refusal:
    return Refusal(code_of(error.code).http, f"{error.code}: {error.message}".encode(), content_type="text/plain")


STREAM: dict[int, Answer] = {200: Answer("Lines.", stream=StreamForm("application/x-ndjson", {"type": "object"}))}
ACTOR = Parameter("path", "actor", "The actor.")
RUN = Parameter("path", "run", "The run.")
AFTER = Parameter("query", "after", "The `at` of the last line seen.")
ROUTES: tuple[Any, ...] = (
    Route("POST", "/lines/{actor}", "startLines", "A run as lines.", start, STREAM, (ACTOR,), Body, (404,)),
    Route("GET", "/lines", "listLines", "The actors.", names, {200: Answer("Their names.", Names)}),
)
RESUME = Route(
    "GET", "/lines/runs/{run}", "followLines", "The rest of it.", follow, STREAM, (RUN, AFTER), errors=(404,)
)


def ndjson(*, resumable: bool = False) -> Dialect:
    """The dialect, with or without its way to read on."""
    return Dialect(
        name="ndjson",
        summary="Lines of JSON.",
        routes=(*ROUTES, RESUME) if resumable else ROUTES,
        refuse=refuse,
        error_body=Fault,
        resumable=resumable,
    )

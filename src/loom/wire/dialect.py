"""The port for other people's wire formats: a dialect reads requests and encodes runs and errors. Pure.

The server does the rest: it starts the run, waits for its first output, keeps its owner alive, cancels it when the
client leaves, and leaves out the output that a restart took back (`loom.server.routes.dialects`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import msgspec

from loom.model.chunk import Batch
from loom.model.cursor import Cursor
from loom.model.errors import ErrorInfo, UnknownProducer
from loom.model.run import ActorInfo

from .description import Answer, Parameter

__all__ = [
    "ActorCall",
    "Catalog",
    "Command",
    "Dialect",
    "Encoder",
    "FollowRun",
    "HttpRequest",
    "NewEncoder",
    "Refusal",
    "Route",
    "ShowCatalog",
    "StartRun",
]


class HttpRequest(NamedTuple):
    """A request as a dialect reads it. Names of headers are lower case; a body is there where its route has one."""

    path: Mapping[str, str]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes = b""


class Catalog(msgspec.Struct, frozen=True):
    """The actors of a server, its default one, and the Unix time when it began."""

    actors: tuple[ActorInfo, ...]
    default: str | None
    since: int

    def find(self, name: str, noun: str = "actor") -> ActorInfo:
        """The actor of that name, else the default one. Raises `UnknownProducer`, which calls it a `noun`."""
        actors = {actor.name: actor for actor in self.actors}
        actor = actors.get(name) or actors.get(self.default or "")
        if actor is None:
            there = ", ".join(sorted(actors)[:20]) or "none"
            raise UnknownProducer(f"no {noun} is named {name[:80]!r} (there are: {there})")
        return actor


# --- from a run to bytes ---------------------------------------------------------------------------------------------


class Encoder(Protocol):
    """One run for one client. It is given the run's batches in order, and may remember any part of them."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers of the answer; `Content-Type` is among them."""
        ...

    @property
    def heartbeat(self) -> bytes:
        """Bytes without meaning that keep a silent connection alive; b"" where the format has none."""
        ...

    @property
    def spoken(self) -> bool:
        """True once a part of the answer was given. Until then a failure has a status."""
        ...

    @property
    def ended(self) -> bool:
        """True once nothing follows, even if the run goes on."""
        ...

    @property
    def error(self) -> ErrorInfo | None:
        """The error that ended it."""
        ...

    def frames(self, batch: Batch) -> bytes:
        """The bytes that these chunks add, b"" if none. Raises `RemoteProtocolError` for what are no chunks."""
        ...

    def fault(self, error: ErrorInfo) -> bytes:
        """The last bytes of an answer that breaks off. Without any it could be taken for a whole one."""
        ...


NewEncoder = Callable[[str, float], Encoder]
"""Makes an encoder for a run, by its id and the Unix time of its start. Called again for each reading of the run."""


# --- from a request to a command -------------------------------------------------------------------------------------


class ActorCall(NamedTuple):
    """An actor's name and the input that it is given."""

    actor: str
    input: Any


class StartRun(msgspec.Struct, frozen=True):
    """Start a run, which the client owns, and answer with it.

    A client that leaves cancels the run: at once, or, if the dialect is resumable or the request has an
    `Idempotency-Key`, when it has not come again within `limits.LEAVE_GRACE`.
    """

    call: Callable[[Catalog], ActorCall]
    """Raises `UnknownProducer`, or `InvalidInput` naming the field."""
    encoder: NewEncoder
    streams: bool = True
    """False: the answer is sent when the run has ended, and an error has its status at any time."""


class FollowRun(msgspec.Struct, frozen=True):
    """Stream a run that there is, from a cursor (None: its beginning); 204 when it has ended and nothing is left.

    From a cursor, `encoder` is given all that lies behind it: whether a later attempt takes back what the client was
    sent before, only the encoder can know, by that cursor."""

    run: str
    after: Cursor | None
    encoder: NewEncoder


class ShowCatalog(msgspec.Struct, frozen=True):
    """Answer with a value made of the catalog, as JSON."""

    answer: Callable[[Catalog], Any]


Command = StartRun | FollowRun | ShowCatalog


class Route(NamedTuple):
    """One method of one path, in the braces of Starlette. `body`: the type of its JSON, None for no body. A POST may
    carry an `Idempotency-Key`. `errors`: statuses beside those that every route may answer with."""

    method: str
    path: str
    name: str
    summary: str
    read: Callable[[HttpRequest], Command]
    """Raises a `LoomError` (`InvalidInput`, `RemoteProtocolError`), which is then the answer."""
    answers: dict[int, Answer]
    parameters: tuple[Parameter, ...] = ()
    body: type | None = None
    errors: tuple[int, ...] = ()


class Refusal(NamedTuple):
    """An error as an answer."""

    status: int
    body: bytes
    headers: Mapping[str, str] = {}
    content_type: str = "application/json"


class Dialect(msgspec.Struct, frozen=True, kw_only=True):
    """A wire format: its routes, its errors, and whether its clients can come again and read on."""

    name: str
    summary: str
    routes: tuple[Route, ...]
    refuse: Callable[[ErrorInfo], Refusal]
    error_body: type
    """The type of a refusal's body, for the description."""
    resumable: bool = False
    """True: a client that was cut off reads on by a route that gives `FollowRun`. Its run lives on for a while, and a
    server that stops ends the stream without an error."""

"""What the server offers, as data: one row an operation. Routing, OpenAPI and the tests of every route read it."""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Iterable
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import compile_path
from starlette.types import ASGIApp, Receive, Scope

from loom.model.errors import LoomError, UsageError
from loom.server.http.answers import Refuse, error_answer
from loom.server.http.requests import ClientGone
from loom.wire.description import Answer, Parameter
from loom.wire.dialect import Dialect
from loom.wire.views import ErrorBody

__all__ = [
    "Answer",
    "Endpoint",
    "Handler",
    "Operation",
    "Parameter",
    "answer_of",
    "check_distinct",
    "endpoints_of",
    "fit",
]

log = logging.getLogger("loom.server")

Handler = Callable[[Request], Awaitable[ASGIApp]]
"""Takes a request, gives what answers it, or raises a `LoomError`, which is then the answer."""


class Operation(NamedTuple):
    """One method of one path. `errors`: statuses beside those that every operation may answer with. `public`: it
    needs no key. `refuse` shows errors as `error_body`, the same for all methods of a path. `dialect`: the one that it
    belongs to, if it is not our own."""

    method: str
    path: str
    name: str
    summary: str
    handler: Handler
    answers: dict[int, Answer]
    parameters: tuple[Parameter, ...] = ()
    body: type | None = None
    errors: tuple[int, ...] = ()
    public: bool = False
    refuse: Refuse = error_answer
    error_body: type = ErrorBody
    dialect: Dialect | None = None


async def answer_of(call: Awaitable[ASGIApp], scope: Scope, refuse: Refuse = error_answer) -> ASGIApp:
    """What `call` gives, or the error that it raises as an answer. `ClientGone` passes."""
    try:
        return await call
    except LoomError as error:
        return refuse(error)
    except ClientGone:
        raise
    except Exception:  # a fault of ours or of the transport: told without its details, which go to the log
        log.exception("%s %r failed", scope["method"], scope["path"])
        return refuse(LoomError("internal error"))


def fit(answer: ASGIApp, scope: Scope) -> ASGIApp:
    """An answer to HEAD has no body, but keeps its headers, Content-Length included (RFC 9110, section 9.3.2)."""
    if scope["method"] == "HEAD" and isinstance(answer, Response):
        answer.body = b""
    return answer


class Endpoint:
    """One path: finds the method's handler, and has an answer whatever happens."""

    def __init__(self, path: str, operations: Iterable[Operation]) -> None:
        self._pattern = re.compile(compile_path(path)[0].pattern, re.DOTALL)  # a name may hold line ends
        operations = tuple(operations)
        self.refuse = operations[0].refuse
        """Shows an error as those are shown here."""
        self._handlers = {operation.method: operation.handler for operation in operations}
        if "GET" in self._handlers:
            self._handlers.setdefault("HEAD", self._handlers["GET"])
        self._allow = ", ".join(sorted(self._handlers))

    def match(self, path: str) -> dict[str, str] | None:
        """The path's parameters, if it is this one."""
        match = self._pattern.fullmatch(path)
        return None if match is None else match.groupdict()

    async def answer(self, scope: Scope, receive: Receive) -> ASGIApp:
        """What answers the request. Raises `ClientGone`."""
        handler = self._handlers.get(scope["method"])
        if handler is None:
            wrong = UsageError(f"{scope['method']} is not offered here", code="method_not_allowed")
            return self.refuse(wrong, {"Allow": self._allow})
        return await answer_of(handler(Request(scope, receive)), scope, self.refuse)


def check_distinct(operations: Iterable[Operation]) -> None:
    """Raise `UsageError` if two have one name, or one method and path, or if a path hides another of its form."""
    owners: dict[str, str] = {}
    paths: dict[str, Operation] = {}
    for operation in operations:
        owner = _owner(operation)
        for key in (f"{operation.method} {operation.path}", f"operation {operation.name!r}"):
            if key in owners:
                raise UsageError(f"{key} is offered twice: by {owners[key]} and by {owner}")
            owners[key] = owner
        first = paths.setdefault(re.sub(r"\{\w+", "{", operation.path), operation)
        if first.path != operation.path:
            raise UsageError(f"{operation.path} of {owner} is never found: {_owner(first)} offers {first.path}")


def _owner(operation: Operation) -> str:
    return "loom" if operation.dialect is None else operation.dialect.name


def endpoints_of(operations: Iterable[Operation]) -> list[Endpoint]:
    """One a path, so that a wrong method is answered with all that are allowed."""
    paths: dict[str, list[Operation]] = {}
    for operation in operations:
        paths.setdefault(operation.path, []).append(operation)
    return [Endpoint(path, those) for path, those in paths.items()]

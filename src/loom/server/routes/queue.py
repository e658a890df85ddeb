"""The routes of the queue and of who works on it: for whoever looks after them."""

from __future__ import annotations

from typing import cast, get_args

from starlette.requests import Request
from starlette.types import ASGIApp

from loom.model import limits
from loom.model.errors import InvalidInput, UsageError
from loom.model.names import check_id
from loom.model.ports import Transport
from loom.model.run import Place
from loom.server.http.answers import json_answer
from loom.server.http.requests import query_int, query_name
from loom.wire.views import Accepted, EntryList, WorkerList

from .operations import Answer, Operation, Parameter
from .parameters import ID

__all__ = ["Work"]

_PLACES = get_args(Place)


class Work:
    """What is queued and leased, and the workers."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def operations(self) -> tuple[Operation, ...]:
        return (
            Operation(
                "GET", "/queue", "showQueue", "Open runs as the queue holds them, in the order of putting.",
                self.show, {200: Answer("The first of them; delayed starts come last.", EntryList)},
                (
                    Parameter("query", "limit", "At most so many.", {
                        "type": "integer", "minimum": 1, "maximum": limits.LIST_LIMIT, "default": 100,
                    }),
                    Parameter("query", "queue", "Only this queue.", ID),
                    Parameter("query", "place", "Only those.", {"type": "string", "enum": list(_PLACES)}),
                ),
            ),
            Operation(
                "GET", "/workers", "listWorkers", "The workers that told of themselves lately, by name.",
                self.workers, {200: Answer("The workers.", WorkerList)},
            ),
            Operation(
                "POST", "/workers/{name}/drain", "drainWorker",
                "Let a worker take nothing new, and finish or hand over what it drives.", self.drain,
                {202: Answer("The worker's name: it will hear of it within seconds.", Accepted)},
                (Parameter("path", "name", "The worker.", ID),), errors=(404, 507),
            ),
        )  # fmt: skip

    async def show(self, request: Request) -> ASGIApp:
        limit = query_int(request, "limit", 100, limits.LIST_LIMIT)
        place = request.query_params.get("place")
        if place is not None and place not in _PLACES:
            raise UsageError(f"place: {place[:80]!r} is none of {', '.join(_PLACES)}", details={"field": "place"})
        found = await self._transport.list_entries(
            queue=query_name(request, "queue"), place=cast("Place | None", place), limit=limit
        )
        return json_answer(EntryList(found))

    async def workers(self, request: Request) -> ASGIApp:
        return json_answer(WorkerList(await self._transport.list_workers()))

    async def drain(self, request: Request) -> ASGIApp:
        name = request.path_params["name"]
        try:
            check_id(name, "worker")
        except InvalidInput:
            raise UsageError(f"there is no worker {name[:80]!r}", code="unknown_worker") from None
        await self._transport.request_drain(name)
        return json_answer(Accepted(name), 202)

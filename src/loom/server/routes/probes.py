"""The routes for whoever watches the server: alive, ready, and what it offers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

from starlette.requests import Request
from starlette.types import ASGIApp

from loom.model.errors import Unavailable
from loom.server.http.answers import json_answer
from loom.server.stream.streams import Streams
from loom.wire.views import Status

from .openapi import describe
from .operations import Answer, Operation

__all__ = ["Probes"]

READY_WITHIN = 2.0
"""The store must answer a readiness probe within this time: probes commonly give up after a few seconds."""


class Probes:
    """`others`: all further operations, which are in the description; `drives`: see `create_app`."""

    def __init__(self, streams: Streams, others: Sequence[Operation], drives: Callable[[], bool] | None = None) -> None:
        self._streams = streams
        self._others = others
        self._drives = drives or (lambda: True)

    def operations(self) -> tuple[Operation, ...]:
        alive = {200: Answer("It runs.", Status)}
        ready = {200: Answer("Its store answers, and some worker takes runs, if it began with one of its own.", Status)}
        document = {200: Answer("This document.", dict)}
        index = {200: Answer("Where to go on.", dict)}
        return (
            Operation("GET", "/", "index", "What this is, and where to go on.", self.index, index),
            Operation("GET", "/healthz", "alive", "Whether the server runs.", self.alive, alive, public=True),
            Operation("GET", "/readyz", "ready", "Whether it can work.", self.ready, ready, public=True),
            Operation("GET", "/openapi.json", "openapi", "What the server offers.", self.openapi, document),
        )

    async def index(self, request: Request) -> ASGIApp:
        """Links are relative: the server may be mounted below a path."""
        links = {"actors": "actors", "runs": "runs", "openapi": "openapi.json"}
        return json_answer({"server": "loom", "links": links})

    async def alive(self, request: Request) -> ASGIApp:
        return json_answer(Status("ok"))

    async def ready(self, request: Request) -> ASGIApp:
        self._streams.check_open()
        try:
            async with asyncio.timeout(READY_WITHIN):
                await self._streams.transport.list_runs(limit=1)
                await self._check_driven()
        except TimeoutError:
            raise Unavailable(f"the store did not answer within {READY_WITHIN:g} s") from None
        return json_answer(Status("ready"))

    async def _check_driven(self) -> None:
        if self._drives():
            return
        if all(worker.draining for worker in await self._streams.transport.list_workers()):
            raise Unavailable("this server's worker drains, or has, and there is no other")

    async def openapi(self, request: Request) -> ASGIApp:
        """Paths are relative to where the app is mounted, which is told as the server (OpenAPI 3.2, section 4.5)."""
        return json_answer({**self._description, "servers": [{"url": request.scope.get("root_path", "") or "/"}]})

    @cached_property
    def _description(self) -> dict[str, Any]:
        return describe((*self._others, *self.operations()))

"""The demo's page as operations of the server: static files under a strict policy, and facts about the process."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib import resources
from pathlib import PurePath

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from loom.server.http.answers import json_answer
from loom.server.routes.operations import Answer, Operation

__all__ = ["POLICY", "Facts", "pages"]

_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
"""Content Security Policy Level 3: nothing inline or from elsewhere, no frame, and no text is ever read as HTML."""

_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


class Facts(msgspec.Struct, frozen=True):
    """What the page tells of the process that serves it: one that its reader is invited to kill."""

    version: str
    process: int
    writer: str
    actor: str = "chat"
    again: str = "loom demo"
    """The command that starts it again, at the same address."""


def pages(facts: Facts) -> tuple[Operation, ...]:
    """The page at ``/``, its parts below ``/page/``, and ``/facts.json``."""
    folder = resources.files(__package__).joinpath("page")
    files = {file.name: file.read_bytes() for file in folder.iterdir() if PurePath(file.name).suffix in _TYPES}
    parts = [_page(f"/page/{name}", name, data) for name, data in sorted(files.items()) if name != "index.html"]
    return (_page("/", "index.html", files["index.html"]), *parts, _facts(facts))


def _page(path: str, name: str, data: bytes) -> Operation:
    kind = _TYPES[PurePath(name).suffix]
    return Operation("GET", path, name, f"The page: {name}.", _sending(data, kind), {200: Answer("The file.", str)})


def _sending(data: bytes, kind: str) -> Callable[[Request], Awaitable[ASGIApp]]:
    async def send(request: Request) -> ASGIApp:
        charset = "" if kind == "image/svg+xml" else "; charset=utf-8"
        return Response(data, 200, {**_HEADERS, "Content-Type": kind + charset})

    return send


def _facts(facts: Facts) -> Operation:
    async def tell(request: Request) -> ASGIApp:
        return json_answer(facts)

    return Operation("GET", "/facts.json", "facts", "What serves the page.", tell, {200: Answer("Facts.", Facts)})

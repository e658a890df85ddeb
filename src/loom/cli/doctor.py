"""`loom doctor`: what works here, and what to do about what does not. No secret is printed."""

from __future__ import annotations

import asyncio
import os
import platform
import sys
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from functools import partial
from importlib import metadata
from pathlib import Path
from textwrap import wrap
from typing import Literal

import apsw
import msgspec

import loom
from loom.app import App
from loom.connect import connect, default_ai, open_store
from loom.engine.follow.client import new_id
from loom.engine.run.writer import Writer
from loom.model import limits
from loom.model.ai import AI, NO_MODEL
from loom.model.chunk import Chunk
from loom.model.errors import LoomError, Unavailable, UsageError
from loom.model.ports import Store, Survey, Surveyed
from loom.model.run import Meta
from loom.producers.llm import MarkovWriter
from loom.wire.urls import shown_url

from .blame import hush, line_of
from .loops import run as run_loop
from .options import AppOption, Listing
from .paint import Painter, is_terminal, size_of
from .places import state_folder, store_url
from .shows import compact, pretty
from .target import load_app, target_of

__all__ = ["Finding", "doctor", "lines_of"]

_PACKAGES = (
    "msgspec", "apsw", "starlette", "uvicorn", "httptools", "uvloop", "httpx2", "cyclopts", "rich", "platformdirs",
    "hiredis",
)  # fmt: skip
_OPTIONAL = frozenset({"uvloop"})
_EXTRAS = frozenset({"hiredis"})
_HOW = "OPENAI_BASE_URL and OPENAI_API_KEY name a real one, or ANTHROPIC_API_KEY, or App(ai=...)"


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one check found. `advice`: what to do."""

    check: str
    status: Literal["good", "warning", "bad"]
    found: str
    advice: str = ""


def doctor(*, app: AppOption = None, output: Listing = "table") -> int:
    """Check this installation and the models of an app, and advise."""
    target = target_of(app, os.environ)
    hush()
    findings = run_loop(lambda _: _examine(target))
    match output:
        case "json":
            print(pretty(findings))
        case "jsonl":
            print("\n".join(map(compact, findings)))
        case _:
            _print(findings)
    return 1 if any(finding.status == "bad" for finding in findings) else 0


def _print(findings: list[Finding]) -> None:
    painter = Painter(sys.stdout)
    signs = {"good": (painter.marks.good, "green"), "warning": (painter.marks.warning, "yellow")}
    for finding in findings:
        mark, style = signs.get(finding.status, (painter.marks.bad, "red"))
        first, *others = lines_of(finding, painter.columns() if is_terminal(sys.stdout) else 0)
        print(f"{painter.paint(mark, style=style)} {finding.check:11}{first}")
        for line in others:
            print(f"{'':13}{line}")


def lines_of(finding: Finding, columns: int) -> list[str]:
    """What was found and the advice, each broken between words to stand in its column. `columns`: 0 for uncut lines."""
    said = [text for text in (finding.found, finding.advice) if text]
    if not columns:
        return said
    room = max(columns - 14, 20)
    return [line for text in said for line in wrap(text, room, break_long_words=False, break_on_hyphens=False)]


async def _examine(target: str) -> list[Finding]:
    findings = [_python(), _packages(), _sqlite(), await _checked("state", _state), await _checked("store", _store)]
    return [*findings, *await _models(target), await _checked("server", _server), _terminal()]


async def _checked(name: str, check: Callable[[], Awaitable[Finding]]) -> Finding:
    """A check that fails is a finding."""
    try:
        async with asyncio.timeout(2 * limits.CONNECT_TIMEOUT):
            return await check()
    except TimeoutError:
        return Finding(name, "bad", f"no answer within {2 * limits.CONNECT_TIMEOUT:g} s")
    except LoomError as error:
        return Finding(name, "bad", line_of(error).removeprefix("error: "), str(error.details.get("hint", "")))
    except Exception as error:  # whatever is broken here is what we are asked to find
        return Finding(name, "bad", f"{type(error).__name__}: {error}")


def _python() -> Finding:
    found = f"{platform.python_implementation()} {platform.python_version()} on {platform.platform(terse=True)}"
    return Finding("python", "good", found)


def _packages() -> Finding:
    versions, missing = [f"loom-streams {loom.__version__}"], []
    for name in _PACKAGES:
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            if name not in _EXTRAS:
                missing.append(name)
    found = ", ".join(versions)
    if set(missing) - _OPTIONAL:
        return Finding("packages", "bad", found, f"python -m pip install {' '.join(missing)}")
    if missing:
        return Finding("packages", "warning", found, "python -m pip install uvloop makes it about twice as fast")
    return Finding("packages", "good", found)


def _sqlite() -> Finding:
    """Write-ahead logging needs shared memory, which not every file system has."""
    version = apsw.sqlitelibversion()
    with tempfile.TemporaryDirectory() as folder:
        connection = apsw.Connection(str(Path(folder) / "wal.db"))
        mode = str(connection.pragma("journal_mode", "wal"))
        connection.close()
    if mode != "wal":
        return Finding("sqlite", "bad", f"{version}, no WAL", "keep stores on a local file system")
    return Finding("sqlite", "good", f"{version}, WAL")


async def _state() -> Finding:
    folder = state_folder()
    with tempfile.TemporaryFile(dir=folder):
        pass
    mode = folder.stat().st_mode & 0o777
    if mode & 0o077:
        return Finding("state", "warning", f"{folder} can be read by others", f"chmod 700 {folder}")
    return Finding("state", "good", f"{folder} is writable, and yours alone")


async def _store() -> Finding:
    """Open it, have a run there from its start to its end; look how its server is set up, if it has one."""
    url = store_url(None, os.environ)
    began = time.perf_counter()
    async with open_store(url) as store:
        await _round_trip(store, f"doctor-{new_id()}")
        took = (time.perf_counter() - began) * 1000
        survey = await store.survey() if isinstance(store, Surveyed) else Survey("")
        place = f"{shown_url(url)} ({survey.server})" if survey.server else shown_url(url)
        found = f"{place} opens and round-trips in {took:.0f} ms ({store.durability})"
        return Finding("store", "warning" if survey.cautions else "good", found, "; ".join(survey.cautions))


async def _round_trip(store: Store, run: str) -> None:
    """As a worker does it, from a queue that nobody else serves."""
    meta = Meta(run=run, actor="doctor", queue=run, created=time.time())
    await store.queue.put(meta)
    try:
        claim = await store.queue.claim([run], run, lease=limits.LEASE, wait=0.0)
        if claim is None:
            raise Unavailable("what was put into the queue is not found there")
        await store.runs.create(meta)
        writer = Writer(store.logs, run, await store.logs.fence(run, uuid.uuid4().hex))
        writer.put(Chunk("start", {"attempt": 1, "actor": "doctor", "kept_through": 0}, time=time.time()))
        await writer.end(Chunk("complete", "written", time=time.time()))
        await writer.aclose()
        if not (await store.logs.read(run)).ended:
            raise Unavailable("what was written is not what is read")
        await store.queue.ack(claim)
    finally:
        await store.runs.drop(run)
        await store.workers.deregister(run)


async def _models(target: str) -> list[Finding]:
    """The models behind `ctx.ai`: a finding for each, with the actors that could use it: those that take a context."""
    try:
        app = load_app(target)
    except UsageError as error:
        return [Finding("model", "bad", error.message, "--app or LOOM_APP names the app")]
    async with app.models(default_ai) as models:
        actors: dict[Callable[[], AI], list[str]] = {}
        for name, model in sorted(models.items()):
            if app.registry.get(name).driver.looks_back:
                actors.setdefault(model, []).append(name)
        if not actors:
            return [Finding("model", "good", "no actor takes a loom.Context, so none has ctx.ai")]
        checks = [partial(_model, app, model, names) for model, names in actors.items()]
        return [await _checked("model", check) for check in checks]


async def _model(app: App, model: Callable[[], AI], actors: list[str]) -> Finding:
    """Of a server also whether it answers, for which no token is spent."""
    users = f" (ctx.ai of {', '.join(actors)})"
    try:
        ai = model()
    except UsageError as error:
        if error.message != NO_MODEL:
            raise
        required = any("ctx.ai" in app.registry.get(name).requires for name in actors)
        return Finding("model", "bad" if required else "warning", f"none: using it raises{users}", _HOW)
    if isinstance(ai, MarkovWriter):
        return Finding("model", "good", f"the built-in writer: no key, no network, little sense{users}", _HOW)
    from loom.producers.llm.http import HttpModel  # the HTTP client takes 0.1 s to import

    if not isinstance(ai, HttpModel):
        return Finding("model", "good", f"{type(ai).__module__}.{type(ai).__qualname__}{users}")
    try:
        async with aclosing(ai):
            return Finding("model", "good", f"{await ai.check()}{users}")
    except Unavailable as error:
        variable = f"{ai.refusals.key.removesuffix('API_KEY')}BASE_URL"
        return Finding("model", "bad", f"{error.message}{users}", f"check {variable}, or what App(ai=...) names")


async def _server() -> Finding:
    url = os.environ.get("LOOM_URL")
    if not url:
        return Finding("server", "good", "none is named (LOOM_URL)")
    began = time.perf_counter()
    async with connect(url) as client:
        actors = len(await client.actors())
    took = (time.perf_counter() - began) * 1000
    count = "1 actor" if actors == 1 else f"{actors} actors"
    return Finding("server", "good", f"{shown_url(url)} answers in {took:.0f} ms; {count}")


def _terminal() -> Finding:
    if not is_terminal(sys.stdout):
        return Finding("terminal", "good", "output is no terminal: plain text")
    size = size_of(sys.stdout)
    found = f"{size.columns} x {size.lines}, {sys.stdout.encoding}{', no colour' if os.environ.get('NO_COLOR') else ''}"
    if not sys.stdout.encoding.lower().startswith("utf"):
        return Finding("terminal", "warning", found, "LANG=C.UTF-8 lets it show all characters")
    return Finding("terminal", "good", found)

"""`loom demo`: the built-in app and its page on this machine, on a SQLite file of its own or a store that is named."""

from __future__ import annotations

import errno
import os
import shlex
import socket
import sys
import threading
import webbrowser
from collections.abc import Iterable, Mapping
from contextlib import aclosing, nullcontext, suppress
from typing import Annotated
from urllib.parse import quote

from cyclopts import Parameter

import loom
from loom.connect import is_alone, open_store
from loom.engine.follow.transport import StoreTransport
from loom.model import limits
from loom.model.errors import UsageError
from loom.wire.urls import shown_url

from .loops import Signals
from .loops import run as run_loop
from .options import flag
from .places import state_folder, store_url
from .serve import Driver, block, check_shared, log_to_stderr, tell
from .target import BUILT_IN, load_app

__all__ = ["demo", "first_free"]

DEMO_LEASE = 2.0
"""In `loom demo`, whose process is killed for show: nobody wants to wait. A worker that hangs so long is fenced."""

_HOST, _PORT = "127.0.0.1", 8700

_PORTS = range(_PORT, _PORT + 10)
"""The usual one, and where to go if it is taken: in order, for a page looks for its server where it was."""

_ELSEWHERE = "name the folder to keep it in: XDG_STATE_HOME=$PWD loom demo"


def demo(
    *,
    port: Annotated[int | None, Parameter(help="Where to listen (default: 8700, or the next that is free).")] = None,
    no_browser: Annotated[bool, flag("Open no browser; the address is printed in any case.", "--no-browser")] = False,
    store: Annotated[
        str | None, Parameter(help="As redis://localhost (default: demo.db, of SQLite, in your state folder).")
    ] = None,
    no_worker: Annotated[bool, flag("Leave the answers to loom worker, on the same store.", "--no-worker")] = False,
) -> None:
    """Serve a chat page on this machine alone, and open it. Ctrl-C ends it; what runs goes on when it is started again.

    Its runs are kept in demo.db in your state folder, unless --store names another place. It asks for no key, and needs
    no network.
    """
    if port is not None and not 0 <= port <= 65535:
        raise UsageError(f"--port {port}: 0 to 65535")
    if no_worker and store is None:
        raise UsageError("--no-worker: name the --store that it shares with a loom worker")
    url = store_url(store, {}) if store else "sqlite:///" + quote(str(state_folder(_ELSEWHERE) / "demo.db"))
    if no_worker:
        check_shared(url)
    log_to_stderr()
    run_loop(lambda signals: _demo(url, store, port, not no_browser, not no_worker, signals))


async def _demo(url: str, named: str | None, port: int | None, browse: bool, drives: bool, signals: Signals) -> None:
    from loom.demo.site import Facts, pages
    from loom.server.app import create_app
    from loom.server.serve import serving

    app = load_app(BUILT_IN)
    writer = await _writer()
    driver = Driver(app, None, limits.CONCURRENCY, DEMO_LEASE, limits.DRAIN)
    async with open_store(url) as store, aclosing(StoreTransport(store, app.registry)) as transport:
        listener = first_free(_PORTS) if port is None else None
        again = _again(port if listener is None else listener.getsockname()[1], named, drives)
        facts = Facts(loom.__version__, os.getpid(), writer, again=again)
        gateway = create_app(
            transport,
            pages=pages(facts),
            drives=(lambda: driver.drives) if drives else None,
            default_actor=app.default_actor,
            dialects=app.dialects,
        )
        async with (
            serving(gateway, host=_HOST, port=port or 0, sock=listener) as address,
            driver.working(store, alone=is_alone(url)) if drives else nullcontext(),
        ):
            answers = (
                ("writer", writer)
                if drives
                else ("worker", f"none here: loom worker --store {shlex.quote(shown_url(url))}")
            )
            tell(
                block("demo", [("page", address.url), ("store", shown_url(url)), answers]),
                "",
                f"  Reload it in mid-answer, open it twice, or kill -9 {os.getpid()} and start it again: it goes on.",
                f"  {again}",
                "  Ctrl-C ends it.",
                "",
            )
            if browse:
                open_browser(address.url, os.environ)
            await signals.wait()


def _again(port: int | None, store: str | None, drives: bool) -> str:
    """The command that serves the same page at the same address: there open pages look for it."""
    words = ["loom", "demo", *(["--port", str(port)] if port not in (None, _PORT) else [])]
    words += [*(["--store", shown_url(store)] if store else []), *([] if drives else ["--no-worker"])]
    return shlex.join(words)


def first_free(ports: Iterable[int]) -> socket.socket | None:
    """Listening on the first of `ports` that is free; None if they are all taken."""
    for port in ports:
        try:
            return socket.create_server((_HOST, port))
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise UsageError(f"cannot listen on {_HOST}: {error.strerror}") from None
    return None


async def _writer() -> str:
    from loom.demo.app import model
    from loom.producers.llm import MarkovWriter

    async with aclosing(model()) as ai:
        if isinstance(ai, MarkovWriter):
            return "a small built-in Markov-chain writer: no key, no network, no understanding"
        return "the model that your environment names"


def open_browser(url: str, env: Mapping[str, str]) -> None:
    """Open `url` where there is a screen; otherwise nothing happens. Never waits: some browsers stay in front."""
    if sys.platform == "darwin" or env.get("DISPLAY") or env.get("WAYLAND_DISPLAY") or env.get("BROWSER"):
        threading.Thread(target=_open, args=(url,), name="loom-browser", daemon=True).start()


def _open(url: str) -> None:
    with suppress(webbrowser.Error):  # the address stands on the screen
        webbrowser.open(url)

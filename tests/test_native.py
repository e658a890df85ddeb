"""Blocking clients where gevent has put greenlets in the place of threads: in processes of their own."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest

import loom
from loom.native import signal, start_thread
from loom.portal import Portal
from tests.clients.places import served


@pytest.fixture
def server() -> Iterator[str]:
    """By its name, which has to be looked up."""
    app = loom.App()

    @app.actor
    async def count(n: int) -> AsyncIterator[int]:
        for i in range(n):
            yield i

    portal, stack = Portal(), AsyncExitStack()
    url: str = portal.call(stack.enter_async_context(served(app)))
    yield url.replace("127.0.0.1", "localhost")
    portal.call(stack.aclose())
    portal.close()


def test_among_greenlets(server: str, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-W",
        "error::ResourceWarning",
        "-m",
        "tests.gevent_clients",
        f"sqlite:///{tmp_path / 'runs.db'}",
        server,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == 8
    assert done.stderr == ""


def test_eventlet_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    patcher = SimpleNamespace(is_monkey_patched=lambda module: module == "thread")
    monkeypatch.setitem(sys.modules, "eventlet.patcher", patcher)
    with pytest.raises(loom.UsageError, match="eventlet"):
        start_thread(lambda: None, "none")


def test_threads_are_threads() -> None:
    ended, names = signal(), list[str]()

    def main() -> None:
        names.append(threading.current_thread().name)
        ended.set()

    start_thread(main, "loom-test")
    ended.wait()
    assert names == ["loom-test"]

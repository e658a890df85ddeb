"""Real Celery, with each of its pools: tasks that stream from an actor."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import loom
from tests.mortal import mortal
from tests.servers.fixtures import own
from tests.servers.server import Server

POOLS = ("prefork", "threads", "gevent")

ASK = """
import sys
from celery import group
from tests.celery_app import follow
for answers in [group(follow.s(n) for n in range(1, 5)).apply_async(queue=queue) for queue in sys.argv[1:]]:
    assert answers.get(timeout=80) == [list(range(n)) for n in range(1, 5)], answers
"""


@contextmanager
def celery(pool: str, queue: str, environment: dict[str, str], log: Path) -> Iterator[None]:
    """A worker, which is asked to stop when the block is left, and does."""
    quiet = ("--without-gossip", "--without-mingle", "--without-heartbeat", "--concurrency", "2")
    command = [sys.executable, "-m", "celery", "-A", "tests.celery_app", "worker", "-P", pool, "-Q", queue, *quiet]
    with log.open("wb") as output:
        worker = subprocess.Popen(mortal(command), env=environment, stdout=output, stderr=output)
        try:
            yield
            worker.send_signal(signal.SIGTERM)
            assert worker.wait(30) == 0, log.read_text()
        finally:
            worker.kill()
            worker.wait()


def test_tasks_of_every_pool_stream_from_an_actor(redis7: Server, tmp_path: Path) -> None:
    app = loom.App()

    @app.actor
    async def count(n: int) -> AsyncIterator[int]:
        for i in range(n):
            yield i

    url = own(redis7.url())
    environment = {**os.environ, "TEST_BROKER": f"{redis7.url()}/9", "TEST_STORE": url}
    queues = {pool: f"{pool}-{uuid.uuid4().hex}" for pool in POOLS}
    with ExitStack() as stack:
        stack.enter_context(loom.connect_sync(url, app=app, worker=True, drain=0))
        for pool, queue in queues.items():  # side by side: they need seconds to start
            stack.enter_context(celery(pool, queue, environment, tmp_path / f"{pool}.log"))
        asking = [sys.executable, "-c", ASK, *queues.values()]
        asked = subprocess.run(asking, env=environment, capture_output=True, text=True, timeout=100, check=False)
        logs = "".join((tmp_path / f"{pool}.log").read_text() for pool in POOLS)
        assert asked.returncode == 0, asked.stderr + logs

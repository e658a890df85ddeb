"""Celery tasks that stream from an actor, each through the one blocking client of its process. Started by
`python -m celery -A tests.celery_app worker`, with a broker and a store named by the environment."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery

import loom

broker = os.environ["TEST_BROKER"]
app = Celery("loom-tests", broker=broker, backend=broker)
clients = loom.per_process(os.environ["TEST_STORE"])


@app.task  # type: ignore[untyped-decorator]  # Celery has no types
def follow(count: int) -> list[Any]:
    return list(clients().stream("count", count).values())

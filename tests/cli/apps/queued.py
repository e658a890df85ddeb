"""Actors with queues of their own."""

from __future__ import annotations

import loom

app = loom.App()


@app.actor
def mail() -> str:
    return "sent"


@app.actor(queue="jobs", priority="low")
def report(rows: int) -> int:
    return rows

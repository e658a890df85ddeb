"""What an author declares wrongly is said where it stands, before any run meets it."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

import loom
from loom.connect import connect
from loom.model.names import PUBLISHED


@pytest.mark.parametrize(
    ("declared", "named"),
    [
        ({"retry": 3}, "retry=3"),
        ({"max_crashes": "5"}, "max_crashes='5'"),
        ({"max_crashes": -1}, "max_crashes=-1"),
        ({"timeout": "2s"}, "timeout='2s'"),
        ({"timeout": 0}, "timeout=0"),
        ({"idle_timeout": -1.0}, "idle_timeout=-1.0"),
        ({"max_crashes": True}, "max_crashes=True"),
        ({"concurrency": True}, "concurrency=True"),
        ({"concurrency": 0}, "concurrency=0"),
        ({"timeout": float("inf")}, "timeout=inf"),
        ({"timeout": 10**400}, "timeout="),
        ({"idle_timeout": float("nan")}, "idle_timeout=nan"),
        ({"idle_timeout": True}, "idle_timeout=True"),
        ({"idle_timeout": timedelta(0)}, "idle_timeout="),
        ({"retention": -1}, "retention=-1"),
        ({"retention": 1e300}, r"retention=1e\+300"),
        ({"ahead": 0}, "ahead=0"),
        ({"ahead": 2.0}, r"ahead=2\.0"),
        ({"ahead": 10**400}, "ahead="),
        ({"keep": 10}, "keep=10"),
        ({"queue": "no name"}, "queue"),
        ({"queue": 3}, "queue"),
        ({"priority": "urgent"}, "priority='urgent'"),
        ({"priority": []}, r"priority=\[\]"),
        ({"requires": "db"}, "requires='db'"),
    ],
)
def test_an_option_that_does_not_fit_is_named(declared: dict[str, Any], named: str) -> None:
    app = loom.App()
    with pytest.raises(loom.UsageError, match=named):

        @app.actor("a", **declared)
        async def a(n: int) -> int:
            return n


@pytest.mark.parametrize(
    "given",
    [
        {"attempts": 0},
        {"attempts": 1.5},
        {"attempts": True},
        {"on": ValueError},
        {"on": ("x",)},
        {"on": (int,)},
        {"on": (asyncio.CancelledError,)},
        {"mode": "x"},
        {"mode": []},
        {"backoff": 1.0},
        {"backoff": None},
        {"backoff": (1.0,)},
        {"backoff": (1.0, "2")},
        {"backoff": (2.0, 1.0)},
        {"backoff": (-1.0, 1.0)},
        {"backoff": (0.1, float("inf"))},
        {"backoff": (float("nan"), 1.0)},
        {"backoff": (True, 1.0)},
    ],
)
def test_a_retry_that_does_not_fit_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(loom.UsageError, match=rf"Retry\({next(iter(given))}="):
        loom.Retry(**given)


def test_memory_without_a_worker_would_wait_for_ever() -> None:
    with pytest.raises(loom.UsageError, match="worker=True"):
        connect("memory://")


@pytest.mark.parametrize(
    "wrong",
    [
        {"queues": "default"},
        {"queues": []},
        {"queues": ["no name"]},
        {"queues": [PUBLISHED]},
        {"concurrency": 0},
        {"concurrency": 1.5},
        {"concurrency": True},
        {"lease": float("inf")},
        {"lease": 10**400},
        {"lease": 0},
        {"lease": 0.01},
        {"lease": float("nan")},
        {"lease": "10"},
        {"drain": -1},
        {"drain": float("nan")},
    ],
)
def test_a_worker_that_would_never_work_is_refused_at_once(wrong: dict[str, Any]) -> None:
    with pytest.raises(loom.UsageError, match=next(iter(wrong)).removesuffix("s")):
        connect("memory://", app=loom.App(), worker=True, **wrong)

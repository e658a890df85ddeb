"""What an app can see of the server around it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import pytest

from loom.server.http.hosts import told_to_stop


class Server:
    """One that handles signals by a method of its own, as uvicorn's and gunicorn's do."""

    def __init__(self, **state: Any) -> None:
        self.__dict__.update(state)

    def handle(self, *_: Any) -> None: ...


@pytest.fixture(autouse=True)
def handler() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ({"should_exit": False}, False),
        ({"should_exit": True}, True),
        ({"alive": True}, False),
        ({"alive": False}, True),
        ({"should_exit": "a name of another kind"}, False),
        ({}, False),
    ],
)
def test_a_server_says_it(state: dict[str, Any], told: bool) -> None:
    signal.signal(signal.SIGTERM, Server(**state).handle)
    assert told_to_stop() is told


@pytest.mark.parametrize("other", [signal.SIG_DFL, signal.SIG_IGN, lambda *_: None])
def test_other_handlers_say_nothing(other: Any) -> None:
    signal.signal(signal.SIGTERM, other)
    assert told_to_stop() is False

"""What a run's models use: whichever model is asked, wherever in the run's tasks.

The runner opens a meter around each attempt; models that are asked inside it count there (docs/adr/0018).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from loom.model.parts import Usage

__all__ = ["Meter", "current_meter", "metered"]


class Meter:
    """Adds up."""

    def __init__(self) -> None:
        self.usage = Usage()

    def add(self, usage: Usage) -> None:
        self.usage += usage


_meter: ContextVar[Meter | None] = ContextVar("loom_meter", default=None)


@contextmanager
def metered(meter: Meter) -> Iterator[None]:
    """What is counted in this block, and in the tasks that begin in it, `meter` adds up."""
    token = _meter.set(meter)
    try:
        yield
    finally:
        _meter.reset(token)


def current_meter() -> Meter | None:
    """The meter of the run that asks, if a run does. Look when the model is asked: the answer may be read elsewhere."""
    return _meter.get()

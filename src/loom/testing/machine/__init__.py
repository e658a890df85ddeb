"""Stores against a plain model: hypothesis tries orders of calls, faults among them, and compares what it finds.

A store proves itself by two test cases, for unittest and pytest alike::

    TestMyStore = store_machine(place)
    TestMyQueue = queue_machine(place)

`place` is a context manager of its own for each example, such as a temporary folder, that gives a `StoreFactory`. The
same machines run for every store. They need hypothesis (the extra ``testing``).
"""

from __future__ import annotations

import unittest

from hypothesis import settings

from .base import Place
from .logs import LogMachine
from .queue import QueueMachine

__all__ = ["Place", "queue_machine", "store_machine"]


def store_machine(
    place: Place, *, reopens: bool = False, examples: int = 100, steps: int = 50
) -> type[unittest.TestCase]:
    """The test case that compares a store's logs with plain lists.

    With `reopens` every call of the factory gives another object on the same place, and restarts are tried too.
    """

    class Machine(LogMachine):
        pass

    return _test_case(Machine, place, reopens, examples, steps)


def queue_machine(
    place: Place, *, reopens: bool = False, examples: int = 100, steps: int = 50
) -> type[unittest.TestCase]:
    """The test case that compares a store's queue with a plain list. `reopens` as for `store_machine`."""

    class Machine(QueueMachine):
        pass

    return _test_case(Machine, place, reopens, examples, steps)


def _test_case(
    machine: type[LogMachine | QueueMachine], place: Place, reopens: bool, examples: int, steps: int
) -> type[unittest.TestCase]:
    machine.place = staticmethod(place)
    machine.reopens = reopens
    case: type[unittest.TestCase] = machine.TestCase
    case.settings = settings(  # type: ignore[attr-defined]
        max_examples=examples, stateful_step_count=steps, deadline=None, print_blob=True
    )
    return case

"""Stores against a plain model: hypothesis tries orders of calls, faults among them, and compares what it finds.

A store proves itself by a test case for each port, for unittest and pytest alike::

    TestMyLogs = log_machine(place)
    TestMyRuns = run_machine(place)
    TestMyQueue = queue_machine(place)
    TestMyWorkers = worker_machine(place)

`place` is a context manager of its own for each example, such as a temporary folder, that gives a `StoreFactory`; a
machine uses the ports that it is named after only (runs: with their logs; the queue: with drops of runs). The same
machines run for every store. They need hypothesis (the extra ``testing``).
"""

from __future__ import annotations

import unittest

from hypothesis import settings

from .base import Machine, Place
from .logs import LogMachine
from .queue import QueueMachine
from .runs import RunMachine
from .workers import WorkerMachine

__all__ = ["Place", "log_machine", "queue_machine", "run_machine", "worker_machine"]


def log_machine(
    place: Place, *, reopens: bool = False, examples: int = 100, steps: int = 50
) -> type[unittest.TestCase]:
    """The test case that compares logs without runs with plain lists.

    With `reopens` every call of the factory gives another object on the same place, and restarts are tried too.
    """
    return _test_case(LogMachine, place, reopens, examples, steps)


def run_machine(
    place: Place, *, reopens: bool = False, examples: int = 100, steps: int = 50
) -> type[unittest.TestCase]:
    """The test case that compares runs, their two logs and their lists with plain values. `reopens` as above."""
    return _test_case(RunMachine, place, reopens, examples, steps)


def queue_machine(
    place: Place, *, reopens: bool = False, examples: int = 100, steps: int = 50
) -> type[unittest.TestCase]:
    """The test case that compares a queue with a plain list. `reopens` as above."""
    return _test_case(QueueMachine, place, reopens, examples, steps)


def worker_machine(
    place: Place, *, reopens: bool = False, examples: int = 50, steps: int = 30
) -> type[unittest.TestCase]:
    """The test case that compares a registry of workers with a plain dict. `reopens` as above."""
    return _test_case(WorkerMachine, place, reopens, examples, steps)


def _test_case(
    machine: type[Machine], place: Place, reopens: bool, examples: int, steps: int
) -> type[unittest.TestCase]:
    machine = type(machine.__name__, (machine,), {"place": staticmethod(place), "reopens": reopens})
    case: type[unittest.TestCase] = machine.TestCase
    case.settings = settings(  # type: ignore[attr-defined]
        max_examples=examples, stateful_step_count=steps, deadline=None, print_blob=True
    )
    return case

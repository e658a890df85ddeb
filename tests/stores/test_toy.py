"""A store of lists and dicts passes every shipped suite: the ports ask for no more than it has. And how small they are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import loom.stores.memory
from loom.testing.clock import StoreFactory
from loom.testing.conformance import StoreConformance
from loom.testing.machine import log_machine, queue_machine, run_machine, worker_machine

from . import toy


@contextmanager
def place() -> Iterator[StoreFactory]:
    yield toy.ToyStore


class TestConformance(StoreConformance):
    @pytest.fixture
    def make_store(self) -> StoreFactory:
        return toy.ToyStore


SHRINKS = pytest.mark.timeout(600)

TestLogMachine = SHRINKS(log_machine(place, examples=50))
TestRunMachine = SHRINKS(run_machine(place, examples=50))
TestQueueMachine = SHRINKS(queue_machine(place, examples=50))
TestWorkerMachine = SHRINKS(worker_machine(place))


def lines(*files: Path) -> int:
    return sum(len(file.read_text().splitlines()) for file in files)


def test_the_ports_are_small() -> None:
    assert lines(Path(toy.__file__)) <= 350
    assert lines(*Path(loom.stores.memory.__file__).parent.glob("*.py")) <= 600

"""The conformance suite of stores: the guarantees of the ports, as tests of pytest.

A store proves itself by a subclass that makes it::

    class TestMyStore(StoreConformance):
        @pytest.fixture
        def make_store(self, tmp_path):
            return lambda clock: MyStore(tmp_path / "data", clock=clock)

Each port has a class of its own, for places that offer one port only: `LogConformance` uses the fixture `logs` alone,
`RunConformance` `runs` and `logs`, `QueueConformance` `queue` and `clock`, `WorkerConformance` `workers`; a subclass
gives that fixture instead of `make_store`. `StoreConformance` is all of them, and the guarantees that take several.

Each test runs on a store of its own. Tests are named after the guarantee they are about, G1 to G10, as the guarantees
page has them. The suite needs pytest (the extra ``testing``), and anyio's plugin, which comes with Loom. With
``pytest.register_assert_rewrite("loom.testing.conformance")`` in a ``conftest.py`` failures show their values.
"""

from __future__ import annotations

from loom.testing.clock import Clock, StoreFactory

from .orders import OrderConformance
from .queue import ClaimConformance
from .reading import ReadingConformance
from .runs import RunConformance
from .sending import SendingConformance
from .shared import SharedConformance
from .whole import WholeConformance
from .workers import WorkerConformance
from .writing import WritingConformance

__all__ = [
    "Clock",
    "LogConformance",
    "QueueConformance",
    "RunConformance",
    "SharedStoreConformance",
    "StoreConformance",
    "StoreFactory",
    "WorkerConformance",
]


class LogConformance(WritingConformance, ReadingConformance, SendingConformance):
    """Guarantees of every `LogStore`."""


class QueueConformance(ClaimConformance, OrderConformance):
    """Guarantees of every `WorkQueue`."""


class StoreConformance(WholeConformance, LogConformance, RunConformance, QueueConformance, WorkerConformance):
    """Guarantees of every store. Subclass it and give `make_store`."""


class SharedStoreConformance(StoreConformance, SharedConformance):
    """Guarantees, besides, of a store that several objects, in one process or many, open on the same place.

    Every call of `make_store` gives another object on the same place; it outlasts them.
    """

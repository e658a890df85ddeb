"""The conformance suite of stores: what every store guarantees, as tests of pytest.

A store proves itself by a subclass that says how it is made::

    class TestMyStore(StoreConformance):
        @pytest.fixture
        def make_store(self, tmp_path):
            return lambda clock: MyStore(tmp_path / "data", clock=clock)

Each test runs on a store of its own. Tests are named after the guarantee they are about, G1 to G10, as the guarantees
page has them. The suite needs pytest (the extra ``testing``), and anyio's plugin, which comes with Loom. With
``pytest.register_assert_rewrite("loom.testing.conformance")`` in a ``conftest.py`` failures show their values.
"""

from __future__ import annotations

from loom.testing.clock import Clock, StoreFactory

from .orders import OrderConformance
from .publishing import PublishingConformance
from .queue import QueueConformance
from .reading import ReadingConformance
from .register import RegisterConformance
from .runs import RunConformance
from .shared import SharedConformance
from .writing import WritingConformance

__all__ = ["Clock", "SharedStoreConformance", "StoreConformance", "StoreFactory"]


class StoreConformance(
    RunConformance,
    WritingConformance,
    ReadingConformance,
    QueueConformance,
    OrderConformance,
    RegisterConformance,
    PublishingConformance,
):
    """What every store guarantees. Subclass it and give `make_store`."""


class SharedStoreConformance(StoreConformance, SharedConformance):
    """What a store guarantees besides, that several objects, in one process or many, open on the same place.

    Every call of `make_store` gives another object on the same place; it outlasts them.
    """

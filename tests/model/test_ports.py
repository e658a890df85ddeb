"""The ports: what is a store is one for the type checker too, and notices are values."""

from __future__ import annotations

from loom.model.chunk import Batch
from loom.model.ports import Fence, Logs, Notice, Queue, Store, Swept
from loom.stores.memory import MemoryStore


def test_the_memory_store_is_a_store() -> None:
    store: Store = MemoryStore()
    logs: Logs = store
    queue: Queue = store
    assert [logs, queue] == [store, store]


def test_values_have_plain_defaults() -> None:
    assert (Notice().batch, Notice().ended) == (None, False)
    assert Swept() == Swept(requeued=0, dropped=0)
    assert Notice(Batch(1, 1, 1, b"{}\n")) == Notice(Batch(1, 1, 1, b"{}\n"))
    assert Fence(1, 2, False) == Fence(epoch=1, tail=2, ended=False)

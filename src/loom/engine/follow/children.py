"""The clients that runs have, `ctx.client`: what a run starts is its child."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from loom.engine.declare.registry import Registry
from loom.engine.run.slots import Slot
from loom.model.ports import Store
from loom.model.run import Meta

from .client import Client
from .hub import Hub
from .transport import StoreTransport

__all__ = ["RunClients"]


class RunClients:
    """The clients of the runs that one worker drives: one hub, so that a child's log is read once."""

    def __init__(self, store: Store, registry: Registry, served: Callable[[], Sequence[str]] | None = None) -> None:
        self._store = store
        self._registry = registry
        self._served = served
        self._hub = Hub(store)

    def of(self, meta: Meta, slot: Slot) -> Client:
        """A client whose starts are children of that run. `slot` is given back while it waits for a run."""
        return Client(
            StoreTransport(
                self._store, self._registry, served=self._served, hub=self._hub, parent=meta, wait=slot.wait_for_run
            )
        )

    async def aclose(self) -> None:
        await self._hub.aclose()

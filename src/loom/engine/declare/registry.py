"""Producers by name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from loom.model.errors import UnknownProducer, UsageError
from loom.model.names import DEFAULT_QUEUE

from .producer import Producer

__all__ = ["Registry"]


class Registry:
    """Producers by name, each name once."""

    def __init__(self) -> None:
        self._producers: dict[str, Producer[Any, Any]] = {}
        self.queues: tuple[str, ...] = (DEFAULT_QUEUE,)
        """The default queue and those that the producers declare: what a worker serves unless it is given others."""

    def add(self, producer: Producer[Any, Any]) -> None:
        """Raises `UsageError` when the name is taken."""
        if producer.name in self._producers:
            raise UsageError(f"two producers are named {producer.name!r}")
        self._producers[producer.name] = producer
        declared = {*self.queues, producer.options.of_run().get("queue", DEFAULT_QUEUE)}
        self.queues = (DEFAULT_QUEUE, *sorted(declared - {DEFAULT_QUEUE}))

    def get(self, name: str) -> Producer[Any, Any]:
        """Raises `UnknownProducer`, naming what is there."""
        try:
            return self._producers[name]
        except KeyError:
            there = ", ".join(sorted(self._producers)[:20]) or "none"
            raise UnknownProducer(
                f"no actor is named {name[:80]!r} (there are: {there})", details={"actor": name[:80]}
            ) from None

    def find(self, name: str) -> Producer[Any, Any] | None:
        """The producer of that name, if there is one."""
        return self._producers.get(name)

    def __iter__(self) -> Iterator[Producer[Any, Any]]:
        return iter(self._producers.values())

    def __len__(self) -> int:
        return len(self._producers)

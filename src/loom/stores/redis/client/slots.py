"""The slots of a cluster: which one a key lies in, and which node has each. Pure."""

from __future__ import annotations

from binascii import crc_hqx
from collections.abc import Iterable
from typing import Any

from loom.model.errors import Unavailable

from .address import Host

__all__ = ["slot_of", "table_of"]

_SLOTS = 16384


def slot_of(key: str) -> int:
    """The slot of a key or channel (Redis Cluster specification, "Hash tags"); ours all have a tag."""
    tag = key.partition("{")[2].partition("}")[0] or key
    return crc_hqx(tag.encode(), 0) % _SLOTS


def table_of(ranges: Iterable[Any], asked: Host) -> list[Host]:
    """The primary of each slot, by a CLUSTER SLOTS reply; a node that does not know its own name is the one that was
    asked. Raises `Unavailable` when a slot has none."""
    table: list[Host | None] = [None] * _SLOTS
    for first, last, primary, *_ in ranges:
        host = (primary[0].decode() if primary[0] else asked[0], int(primary[1]))
        table[first : last + 1] = [host] * (last + 1 - first)
    if None in table:
        raise Unavailable("the cluster does not serve all its slots")
    return table  # type: ignore[return-value]

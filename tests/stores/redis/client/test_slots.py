"""Slots: where a key lies, and who has it."""

from __future__ import annotations

from typing import Any

import pytest

from loom.model.errors import Unavailable
from loom.stores.redis.client.slots import slot_of, table_of

HERE = ("127.0.0.1", 7000)


@pytest.mark.parametrize(("key", "tag"), [("{user1000}.following", "user1000"), ("foo{bar}{zap}", "bar")])
def test_a_key_lies_where_its_tag_does(key: str, tag: str) -> None:
    """Redis Cluster specification, "Hash tags": two of its examples."""
    assert slot_of(key) == slot_of(tag)


def test_the_hash_is_the_specification_s() -> None:
    """Redis Cluster specification, "Appendix A": CRC16 of "123456789" is 31C3."""
    assert slot_of("123456789") == 0x31C3 % 16384


def test_each_slot_has_its_primary() -> None:
    ranges: list[Any] = [
        [0, 8000, [b"10.0.0.1", 7001, b"id"], [b"10.0.0.9", 7009, b"a replica"]],
        [8001, 16383, [b"10.0.0.2", 7002, b"id"]],
    ]
    table = table_of(ranges, HERE)
    assert len(table) == 16384
    assert [table[slot] for slot in (0, 8000, 8001, 16383)] == [("10.0.0.1", 7001)] * 2 + [("10.0.0.2", 7002)] * 2


@pytest.mark.parametrize("name", [None, b""])
def test_a_node_that_does_not_know_its_own_name_is_the_one_that_was_asked(name: bytes | None) -> None:
    assert set(table_of([[0, 16383, [name, 7005]]], HERE)) == {("127.0.0.1", 7005)}


def test_a_slot_that_nobody_has_is_told() -> None:
    with pytest.raises(Unavailable, match="all its slots"):
        table_of([[0, 16382, [b"10.0.0.1", 7001]]], HERE)

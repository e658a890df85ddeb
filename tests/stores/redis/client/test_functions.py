"""The text that servers are given: whole, and named after itself."""

from __future__ import annotations

import re

from loom.stores.redis.client.functions import CODE, NAME, name_of


def test_nothing_in_it_is_left_to_be_filled_in() -> None:
    assert not re.search(r"LIMIT_|VERSION", CODE)
    assert CODE.startswith(f"#!lua name={NAME}\n")


def test_every_function_that_is_called_is_registered() -> None:
    """Under the library's name, so that those of two releases do not meet."""
    registered = re.findall(r"^register\('(\w+)'", CODE, re.MULTILINE)
    assert len(registered) == len(set(registered))
    assert name_of("append") == f"{NAME}_append"
    assert "'" + NAME + "_' .. name" in CODE

"""What an inbox takes, to the byte."""

from __future__ import annotations

import pytest

from loom.model import limits
from loom.model.chunk import CANCEL
from loom.model.errors import LimitExceeded
from loom.stores.inbox import check_room

FULL = {"messages": limits.INBOX_MESSAGES, "size": limits.INBOX_BYTES}


@pytest.mark.parametrize(
    ("messages", "size", "fits"),
    [
        (0, 0, True),
        (limits.INBOX_MESSAGES - 1, 0, True),
        (limits.INBOX_MESSAGES, 0, False),
        (1, limits.INBOX_BYTES - 2, True),
        (1, limits.INBOX_BYTES - 1, False),
    ],
)
def test_an_inbox_has_room_for_so_many_messages_and_bytes(messages: int, size: int, fits: bool) -> None:
    if fits:
        check_room(b"1", "sender", messages=messages, size=size)
    else:
        with pytest.raises(LimitExceeded) as caught:
            check_room(b"1", "sender", messages=messages, size=size)
        assert (caught.value.code, caught.value.retryable) == ("limit_exceeded", False)


def test_the_cancel_finds_room_but_is_no_larger_than_others() -> None:
    check_room(b"1", CANCEL, **FULL)
    with pytest.raises(LimitExceeded) as caught:
        check_room(b"1" * (limits.MESSAGE_BYTES + 1), CANCEL, **FULL)
    assert caught.value.code == "too_large"

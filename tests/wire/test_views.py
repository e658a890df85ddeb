"""A head survives being shown and read again, whatever is known of it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from loom.model.errors import ErrorInfo
from loom.model.run import Head, Meta
from loom.wire.json import encode
from loom.wire.views import RunView, head_of, view_of

PLAIN = Meta(run="r", actor="a", created=1.5)
FULL = Meta(
    run="r", actor="a", input=msgspec.Raw(b'{"n":[1,{"x":null}]}'), queue="q", key="k", created=1.5, owner_lease=1.0,
    timeout=2.0, idle_timeout=3.0, ahead=4, retention=5.0,
)  # fmt: skip
EPOCHS = ((1_0000_0007, 1), (2_0000_0003, 5))

HEADS = {
    "queued": Head(meta=PLAIN),
    "running": Head(meta=FULL, epochs=EPOCHS, tail=9, state="running", started=2.5),
    "trimmed": Head(meta=PLAIN, epochs=EPOCHS, first=6, tail=9, state="running", started=2.5),
    "completed": Head(
        meta=FULL, epochs=EPOCHS, tail=9, ended=True, state="completed", result=msgspec.Raw(b'{"a":[1]}'),
        started=2.5, ended_at=3.5,
    ),
    "completed with null": Head(
        meta=FULL, epochs=EPOCHS, tail=9, ended=True, state="completed", result=msgspec.Raw(b"null"), ended_at=3.5
    ),
    "failed": Head(
        meta=PLAIN, epochs=EPOCHS, tail=9, ended=True, state="failed",
        error=ErrorInfo("run_failed", "why", True, {"x": 1}), ended_at=3.5,
    ),
    "cancelled before it began": Head(
        meta=PLAIN, epochs=((7, 1),), tail=1, ended=True, state="cancelled", error=ErrorInfo("cancelled", "no")
    ),
}  # fmt: skip


def plain(head: Head) -> tuple[dict[str, Any], dict[str, Any]]:
    """A head as what can be compared: raw JSON has no equality of its own."""

    def fields(value: msgspec.Struct) -> dict[str, Any]:
        named = {name: getattr(value, name) for name in value.__struct_fields__ if name != "meta"}
        return {name: bytes(one) if isinstance(one, msgspec.Raw) else one for name, one in named.items()}

    return fields(head), fields(head.meta)


@pytest.mark.parametrize("what", HEADS)
def test_a_view_is_the_head(what: str) -> None:
    head = HEADS[what]
    assert plain(head_of(msgspec.json.decode(encode(view_of(head)), type=RunView))) == plain(head)


@pytest.mark.parametrize("what", HEADS)
def test_a_view_in_a_list_has_neither_input_nor_result(what: str) -> None:
    data = encode(view_of(HEADS[what], full=False))
    shown = msgspec.json.decode(data)
    assert "input" not in shown
    assert "result" not in shown
    head = head_of(msgspec.json.decode(data, type=RunView))
    assert (bytes(head.meta.input), head.result) == (b"null", None)


def test_cursors_are_shown_as_text() -> None:
    shown = msgspec.json.decode(encode(view_of(HEADS["trimmed"])))
    assert (shown["earliest"], shown["latest"], shown["chunks"]) == ("200000003-5", "200000003-9", 9)
    assert "latest" not in msgspec.json.decode(encode(view_of(HEADS["queued"])))

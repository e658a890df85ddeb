"""`msgspec.Raw` is passed on by the encoder as it is; a log never takes it on trust."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

import loom
import loom.testing
from loom.wire.json import sound

pytestmark = pytest.mark.anyio

app = loom.App()


@app.actor
async def relay(text: str, ctx: loom.Context) -> AsyncIterator[dict[str, Any]]:
    yield {"upstream": msgspec.Raw(text.encode("utf-8", "surrogateescape"))}


async def test_json_on_several_lines_is_put_on_one() -> None:
    async with loom.testing.client(app) as client:
        said: Any = await client.execute("relay", '{\n  "a": [1,\r\n 2]\n}')
    assert said == [{"upstream": {"a": [1, 2]}}]


@pytest.mark.parametrize("text", ['{"a":', '1}, {"b": 2', '"a\nb"', ""])
async def test_what_is_no_json_is_invalid_output(text: str) -> None:
    async with loom.testing.client(app) as client:
        with pytest.raises(loom.RunFailed) as raised:
            await client.execute(relay, text)
    assert raised.value.code == "invalid_output"


def test_other_encodings_are_refused() -> None:
    with pytest.raises(ValueError, match="utf-8"):
        sound(b'{"a":"\xff"}')
    assert sound('{"a":"ä"}'.encode()) == '{"a":"ä"}'.encode()


async def test_inputs_and_messages_are_looked_at_too() -> None:
    async with loom.testing.client(app) as client:
        with pytest.raises(loom.InvalidInput):
            await client.start("relay", msgspec.Raw(b'{"text": '))
        run = await client.start(relay, "1")
        with pytest.raises(loom.InvalidInput):
            await run.send("word", msgspec.Raw(b"[1,"))

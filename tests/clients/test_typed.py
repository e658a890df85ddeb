"""Any declared type that registration accepts, any value of it: by function the reader gets an equal value of that
type, by name its JSON, at every place. What would not come back is refused at the yield."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import loom
from loom.wire.codec import same
from loom.wire.data import encode_value
from loom.wire.json import decode
from tests.wire.typed import BASES, Typed, typed

from . import places


def echoing(hint: Any, value: Any) -> Any:
    """An actor that yields `value`, and its input as the result, both declared as `hint`."""

    async def echo(given):  # type: ignore[no-untyped-def]
        yield value
        yield loom.Result(given)

    echo.__annotations__ = {"given": hint, "return": AsyncIterator[loom.Result[hint] | hint]}
    return echo


async def check(client: loom.Client, actor: Any, name: str, value: Any) -> None:
    refused = actor.yields.fault(value)
    if refused is not None:
        with pytest.raises(loom.InvalidInput, match="given"):
            await client.start(actor, value)
        run = await client.start(name, {"given": decode(encode_value(value))})
        with pytest.raises(loom.RunFailed) as raised:
            await run.result()
        assert raised.value.code in ("invalid_output", "invalid_input")
        return
    run = await client.start(actor, given=value)
    (read,) = [read async for read in run.values()]
    assert same(value, read), (actor.yields, value, read)
    plain = decode(encode_value(value))
    if plain is not None:  # which is no result
        assert same(value, await run.result()), (actor.yields, value)
    assert [read async for read in client.run(run.id).values()] == [plain]


async def check_all(connected: places.Connected, pairs: list[Typed]) -> None:
    app = loom.App()
    actors: list[tuple[Any, str, Any]] = []
    for hint, value in pairs:
        name = f"echo{len(actors)}"
        with contextlib.suppress(loom.UsageError):  # refused where it is declared
            actors.append((app.actor(name)(echoing(hint, value)), name, value))
    async with connected(app) as client:
        await asyncio.gather(*(check(client, *actor) for actor in actors))


PLACES = pytest.mark.parametrize("connected", ["memory", "sqlite", "http", "redis7"], indirect=True)


@pytest.fixture
def connected(request: pytest.FixtureRequest, tmp_path: Path) -> places.Connected:
    return places.connected(request.param, tmp_path, places.url_of(request, tmp_path))


@PLACES
def test_values_of_any_type_come_back(connected: places.Connected) -> None:
    bases = st.fixed_dictionaries(dict(enumerate(BASES.values())))

    @settings(
        max_examples=3,
        deadline=None,
        database=None,
        phases=[Phase.generate],  # an example takes too long to be made smaller
        suppress_health_check=list(HealthCheck),
    )
    @given(bases, st.lists(typed(), min_size=15, max_size=30))
    def run(base: dict[int, Any], drawn: list[Typed]) -> None:
        each = [Typed(hint, base[index]) for index, hint in enumerate(BASES)]
        asyncio.run(check_all(connected, each + drawn))

    run()

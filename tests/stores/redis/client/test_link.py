"""One connection by itself: order, refusals, what is lost with it; and the link that makes it anew."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from loom.model.errors import HandleClosed, Unavailable
from loom.stores.redis import parse_url
from loom.stores.redis.client.dialer import Dialer
from loom.stores.redis.client.link import Link, ReplyError, Wire
from tests.servers.server import Server

pytestmark = pytest.mark.anyio


@pytest.fixture
async def wire(valkey: Server) -> AsyncIterator[Wire]:
    wire = await Dialer(parse_url(valkey.url())).dial(None)
    yield wire
    wire.close()


async def test_replies_come_in_order_and_a_refusal_is_its_own(wire: Wire) -> None:
    asked = [wire.ask("ECHO", "a"), wire.ask("ECHO"), wire.ask("ECHO", b"b"), wire.ask("ECHO", 3)]
    first, refused, *others = await asyncio.gather(*asked, return_exceptions=True)
    assert first == b"a"
    assert isinstance(refused, ReplyError)
    assert others == [b"b", b"3"]


async def test_a_barrier_stands_behind_all_that_is_asked_in_its_turn(wire: Wire) -> None:
    """Once for all of them; the next turn has its own."""
    done: list[str] = []
    barrier = wire.barrier("ECHO", "behind")
    assert wire.barrier("ECHO", "behind") is barrier
    wire.ask("ECHO", "before").add_done_callback(lambda asked: done.append("before"))
    barrier.add_done_callback(lambda asked: done.append("behind"))
    assert await barrier == b"behind"
    assert done == ["before", "behind"]
    assert wire.barrier("ECHO", "next") is not barrier


async def test_what_is_asked_of_a_lost_connection_is_told(wire: Wire) -> None:
    """Before and after."""
    asked, barrier = wire.ask("ECHO", "a"), wire.barrier("ECHO", "behind")
    wire.close()
    wire.close()
    for future in (asked, wire.ask("ECHO", "b"), barrier):
        with pytest.raises(Unavailable, match="was lost"):
            await future
    assert wire.lost.done()


async def test_a_connection_is_made_once_for_all_who_need_it(valkey: Server) -> None:
    """And anew for who comes after its loss."""
    dialer, made = Dialer(parse_url(valkey.url())), 0

    async def dial() -> Wire:
        nonlocal made
        made += 1
        return await dialer.dial(None)

    link = Link(dial)
    assert not link.is_up
    first, *others = await asyncio.gather(*(link.up() for _ in range(5)))
    assert all(other is first for other in others)
    assert (made, link.is_up) == (1, True)
    first.close()
    assert not link.is_up
    assert await link.ask("ECHO", "again") == b"again"
    assert made == 2
    await link.aclose()
    with pytest.raises(HandleClosed):
        await link.ask("ECHO", "late")


async def test_a_link_that_cannot_be_made_is_tried_again_by_the_next(valkey: Server) -> None:
    dialer, gone = Dialer(parse_url(valkey.url())), [Unavailable("away")]

    async def dial() -> Wire:
        if gone:
            raise gone.pop()
        return await dialer.dial(None)

    link = Link(dial)
    with pytest.raises(Unavailable, match="away"):
        await link.up()
    assert await link.ask("ECHO", "a") == b"a"
    await link.aclose()

"""What an observer of one counter knows of each claim."""

from __future__ import annotations

import pytest

from loom.model import limits
from loom.model.run import Meta
from loom.stores.redis import RedisStore, parse_url
from loom.stores.redis.standing import Standing, Stood


def claim(renewal: int, lease: float = 10.0, *, place: str = "leased") -> Standing:
    return Standing.of(f"queue actor {place} {lease!r} {renewal} {lease!r} run")


def stood_of(stood: Stood, standing: Standing) -> float:
    ((_, seconds),) = stood.stood([standing])
    return seconds


def lapsed(stood: Stood, standing: Standing) -> bool:
    return stood_of(stood, standing) >= standing.lease


def looks(stood: Stood, seconds: float, renewals: int, *, start: float = 0.0, step: float = 0.5) -> float:
    now = start
    while now < start + seconds:
        now = min(now + step, start + seconds)
        stood.look(renewals, now)
    return now


def test_what_nobody_renews_lapses_after_its_lease() -> None:
    stood = Stood()
    stood.look(5, 0.0)
    looks(stood, 9.9, 5)
    assert not lapsed(stood, claim(5))
    looks(stood, 0.2, 5, start=9.9)
    assert lapsed(stood, claim(5))
    assert not lapsed(stood, claim(5, 100.0))


def test_what_was_renewed_has_stood_only_since() -> None:
    """Its number is larger than the counter was; others' renewals do not matter."""
    stood = Stood()
    stood.look(5, 0.0)
    now = looks(stood, 8.0, 6)
    looks(stood, 8.0, 20, start=now)
    assert stood_of(stood, claim(5)) == 16.0
    assert 15.0 <= stood_of(stood, claim(6)) < 16.0
    assert 7.0 <= stood_of(stood, claim(7)) < 8.0
    assert stood_of(stood, claim(21)) == 0.0


def test_of_a_time_in_which_nobody_looked_half_a_lease_counts() -> None:
    """But of a pause all: nobody has to renew that."""
    stood = Stood()
    stood.look(5, 0.0)
    stood.look(5, 1000.0)
    assert stood_of(stood, claim(5)) == 5.0
    assert stood_of(stood, claim(5, place="paused")) == 1000.0


def test_many_looks_do_not_push_out_the_old_ones() -> None:
    """A busy worker looks hundreds of times a second; a lease of an hour passes all the same."""
    stood = Stood()
    stood.look(5, 0.0)
    looks(stood, 12.0, 5, step=0.001)
    assert lapsed(stood, claim(5))
    now = looks(stood, 3600.0, 5, start=12.0)
    assert 3300.0 < stood_of(stood, claim(5, 3600.0)) <= 3612.0
    assert now == 3612.0


def test_what_was_renewed_lately_need_not_be_asked_for() -> None:
    stood = Stood()
    assert stood.unrenewed_for(1.0, 0.0) is None
    stood.look(5, 0.0)
    assert stood.unrenewed_for(1.0, 0.9) is None
    stood.look(6, 0.8)
    stood.look(9, 1.6)
    assert stood.unrenewed_for(0.5, 1.6) == 6
    assert stood.unrenewed_for(1.0, 1.6) == 5
    assert stood.unrenewed_for(1.0, 1.8) == 6


def test_a_look_soon_after_another_counts_if_the_next_is_late() -> None:
    """Else what was claimed between the two would have been seen first by the late one."""
    stood = Stood()
    stood.look(4, 0.0)
    stood.look(5, 0.1)
    stood.look(5, 5.1)
    assert stood_of(stood, claim(5)) == 5.0


def test_it_remembers_a_bounded_number() -> None:
    stood = Stood()
    looks(stood, 10_000.0, 5)
    assert len(stood._looks) <= limits.LOOKS


def test_a_counter_that_has_gone_back_is_another_one() -> None:
    """All was flushed: nothing that was seen before says anything of what is claimed since."""
    stood = Stood()
    now = looks(stood, 100.0, 5000)
    stood.look(4, now + 0.1)
    assert stood_of(stood, claim(3)) == 0.0


@pytest.mark.anyio
@pytest.mark.parametrize("redis_url", ["valkey", "redis7"], indirect=True)
async def test_a_claim_lapses_for_an_observer_a_lease_after_he_saw_it_first(redis_url: str) -> None:
    """Not a look later, also when he has watched for long."""
    now = 0.0
    async with (
        RedisStore(parse_url(redis_url)) as holder,
        RedisStore(parse_url(redis_url), clock=lambda: now) as observer,
    ):
        await holder.queue.put(Meta(run="run", actor="actor"))
        held = await holder.queue.claim(["default"], "w1", lease=2.0, wait=0.0)
        assert held is not None
        for now in (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.4, 4.5):
            if now < 3.0:
                await holder.queue.renew(held)
            found = await observer.queue.claim(["default"], "w2", lease=2.0, wait=0.0)
            assert (found is None) == (now < 4.5)

"""Which claims stand still, told by one counter: every claim and renewal in the queue takes its next number.

An observer remembers what the counter was, and when, by its own monotonic clock: a claim with no larger number has not
been renewed since. So a look costs one number, however many claims there are. The rule is that of `loom.model.lease`:
of the time between two looks half a lease counts at most.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from itertools import accumulate, pairwise
from math import inf
from typing import NamedTuple

from loom.model import limits

__all__ = ["Standing", "Stood"]


_KIND = 2**40
"""In the server each kind of claims has so many scores to itself, one for each renewal: see `functions.lua`."""


class Standing(NamedTuple):
    """A claim, or a pause before another, as it stands in the queue."""

    name: str
    """All of the others in one, as the server orders them."""
    kind: str
    """How the names of those begin that have about the same lease, in its queue and of its actor."""
    about: float
    """The shortest lease that one of them may have."""
    queue: str
    actor: str
    paused: bool
    renewal: int
    lease: float
    run: str

    @classmethod
    def of(cls, name: str) -> Standing:
        """By its name."""
        queue, actor, place, about, score, lease, run = name.split(" ")
        kind = f"{queue} {actor} {place} {about}"
        return cls(name, kind, float(about), queue, actor, place == "paused", int(score) % _KIND, float(lease), run)

    @property
    def most(self) -> float:
        """What counts of the time between two looks: of a pause all, for nobody has to renew it."""
        return inf if self.paused else self.lease / 2


class Stood:
    """One observer's looks at the counter. Looks are remembered as closely as the shortest lease needs, and the older
    they are the fewer."""

    def __init__(self) -> None:
        self._looks: list[tuple[int, float]] = []
        """What the counter was, and when; the newest last."""

    @property
    def looked(self) -> float:
        """When it looked last."""
        return self._looks[-1][1] if self._looks else -inf

    def look(self, renewals: int, now: float, *, apart: float = limits.OBSERVE) -> None:
        """The counter is at `renewals`. A look whose neighbours lie less than `apart` seconds apart is forgotten. A
        counter that has gone back is another one: nothing of the old one's looks holds."""
        if self._looks and renewals < self._looks[-1][0]:
            self._looks = []
        looks = self._looks
        if len(looks) > 1 and now - looks[-2][1] < apart:
            looks.pop()
        looks.append((renewals, now))
        if len(looks) > limits.LOOKS:
            self._looks = _thinned(looks)

    def stood(self, standing: Iterable[Standing]) -> Iterator[tuple[Standing, float]]:
        """For how long nobody has renewed each of them, as far as this observer knows."""
        renewals = [renewals for renewals, _ in self._looks]
        since: dict[float, list[float]] = {}
        for one in standing:
            if one.most not in since:
                since[one.most] = [*self._since(one.most), 0.0]
            yield one, since[one.most][bisect_left(renewals, one.renewal)]

    def _since(self, most: float) -> list[float]:
        """How long what has not been renewed since each of the looks has stood still."""
        times = [at for _, at in reversed(self._looks)]
        steps = (min(after - at, most) for after, at in pairwise(times))
        return [*accumulate(steps, initial=0.0)][::-1]

    def unrenewed_for(self, seconds: float, now: float) -> int | None:
        """What has a larger number has been renewed within these seconds; None: it has not been watched for so long."""
        return next((renewals for renewals, at in reversed(self._looks) if now - at >= seconds), None)


def _thinned(looks: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """Without those whose neighbours lie closer together than a sixteenth of their age: of any lease a half is more."""
    kept, now = looks[:1], looks[-1][1]
    for look, after in pairwise(looks[1:]):
        before = kept[-1][1]
        if after[1] - before > (now - before) / 16:
            kept.append(look)
    return [*kept[-limits.LOOKS // 2 :], looks[-1]]

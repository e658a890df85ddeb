"""Who watches what."""

from __future__ import annotations

from loom.model.ports import Notice
from loom.stores.watchers import Watchers


def test_each_watch_is_told_and_ends_by_itself() -> None:
    watchers = Watchers()
    told: list[str] = []
    first = watchers.add("log", lambda notice: told.append("first"))
    second = watchers.add("log", lambda notice: told.append("second"))
    watchers.add("other", lambda notice: told.append("other"))
    watchers.tell("log", Notice())
    first()
    first()
    watchers.tell("log", Notice())
    assert told == ["first", "second", "second"]
    second()
    watchers.tell("log", Notice())
    assert list(watchers) == ["other"]
    watchers.tell_all(Notice())
    assert told[3:] == ["other"]


def test_who_is_told_may_watch_and_unwatch() -> None:
    """Who is added is told from the next time on."""
    watchers = Watchers()
    told: list[str] = []

    def once(notice: Notice) -> None:
        told.append("once")
        unwatch()
        watchers.add("log", lambda notice: told.append("added"))
        watchers.add("another", lambda notice: told.append("another"))

    unwatch = watchers.add("log", once)
    watchers.tell_all(Notice())
    watchers.tell("log", Notice())
    assert told == ["once", "added"]

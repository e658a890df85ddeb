"""Flags, then the environment, then the user's own state folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from loom import UsageError
from loom.cli.places import Place, make_private, place_of, store_url


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "a state"))
    return tmp_path / "a state" / "loom"


ENV = {"LOOM_URL": "http://env:1", "LOOM_STORE": "sqlite:///env.db", "LOOM_APP": "env:app"}
STORE_ENV = {name: value for name, value in ENV.items() if name != "LOOM_URL"}


@pytest.mark.parametrize(
    ("url", "store", "app", "env", "place"),
    [
        ("http://x:1", None, None, ENV, Place("http://x:1", None, " --url http://x:1")),
        (None, "sqlite:///x.db", None, ENV, Place("sqlite:///x.db", "env:app", " --store sqlite:///x.db")),
        (None, None, "x:app", ENV, Place("sqlite:///env.db", "x:app", "")),
        (None, None, None, ENV, Place("http://env:1", None, "")),
        (None, None, None, STORE_ENV, Place("sqlite:///env.db", "env:app", "")),
        (None, "sqlite:///a b.db", None, {}, Place("sqlite:///a b.db", "built:in", " --store 'sqlite:///a b.db'")),
    ],
)
def test_flags_come_before_the_environment(
    url: str | None, store: str | None, app: str | None, env: dict[str, str], place: Place
) -> None:
    assert place_of(url, store, app, default_app="built:in", env=env) == place


def test_nothing_named_is_the_state_folder(state: Path) -> None:
    place = place_of(None, None, None, default_app="built:in", env={"LOOM_URL": "", "LOOM_STORE": ""})
    assert place == Place(f"sqlite:///{str(state).replace(' ', '%20')}/runs.db", "built:in")
    assert state.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("url", "store", "app"),
    [
        ("http://x", "sqlite:///x", None),
        ("http://x", None, "a:b"),
        ("sqlite:///x", None, None),
        (None, "http://x", None),
    ],
)
def test_what_contradicts_itself_is_refused(url: str | None, store: str | None, app: str | None) -> None:
    with pytest.raises(UsageError):
        place_of(url, store, app, env={})


@pytest.mark.parametrize(
    "url", ["http://[::1", "http://h]x", "http://[zz]/", "http://\u2100.com", "http://h:x", "http://h:99999", "http://"]
)
def test_what_is_no_url_is_told_by_the_name_it_was_given_by(url: str) -> None:
    with pytest.raises(UsageError, match=r"^--url"):
        place_of(url, None, None, env={})
    with pytest.raises(UsageError, match=r"^LOOM_URL"):
        place_of(None, None, None, env={"LOOM_URL": url})
    with pytest.raises(UsageError, match=r"^--store"):
        store_url(url, {})
    with pytest.raises(UsageError, match=r"^LOOM_STORE"):
        store_url(None, {"LOOM_STORE": url})


def test_a_malformed_url_is_not_shown() -> None:
    with pytest.raises(UsageError) as caught:
        place_of("http://user:secret@[::1", None, None, env={})
    assert "secret" not in str(caught.value)


def test_a_server_is_no_store() -> None:
    with pytest.raises(UsageError, match="name it by --url"):
        store_url(None, {"LOOM_STORE": "http://x"})


def test_the_flags_of_a_hint_show_no_password() -> None:
    assert place_of(None, "redis://u:hush@h", None, env={}).flags == " --store redis://h"
    assert place_of(None, "redis://h/1?prefix=a", None, env={}).flags == " --store 'redis://h/1?prefix=a'"
    assert place_of("http://h:8700", None, None, env={}).flags == " --url http://h:8700"


def test_new_folders_are_their_owners_alone(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir(mode=0o755)
    there.chmod(0o755)
    before = os.umask(0)
    try:
        make_private(there / "state" / "loom")
        make_private(there / "state" / "loom")
    finally:
        os.umask(before)
    assert [oct(path.stat().st_mode & 0o777) for path in (there, there / "state", there / "state" / "loom")] == [
        "0o755",
        "0o700",
        "0o700",
    ]

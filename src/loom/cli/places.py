"""Where a command works: a server, a store, or the store in the user's own state folder."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import SplitResult, quote, urlsplit

import platformdirs

from loom.connect import server_at
from loom.model.errors import UsageError
from loom.wire.urls import shown_url

__all__ = ["Place", "make_private", "place_of", "state_folder", "store_url"]

_SERVERS = ("http", "https")


class Place(NamedTuple):
    """The URL to connect to, and the app whose producers are known there (None: the server knows them)."""

    url: str
    app: str | None = None
    flags: str = ""
    """The command-line flags that name it again."""

    @property
    def remote(self) -> bool:
        return urlsplit(self.url).scheme in _SERVERS


def place_of(
    url: str | None, store: str | None, app: str | None, *, default_app: str | None = None, env: Mapping[str, str]
) -> Place:
    """Flags first; then LOOM_URL; then LOOM_STORE and LOOM_APP; then the state folder and `default_app`.

    Raises `UsageError` for flags that contradict each other, and for a URL where it cannot be.
    """
    if url and (store or app):
        raise UsageError(f"--url and --{'store' if store else 'app'} contradict each other: a server has its own")
    if url:
        return Place(_checked_server(url, "--url"), None, f" --url {shlex.quote(shown_url(url))}")
    if not store and not app and (named := env.get("LOOM_URL")):
        return Place(_checked_server(named, "LOOM_URL"))
    flags = f" --store {shlex.quote(shown_url(store))}" if store else ""
    return Place(store_url(store, env), app or env.get("LOOM_APP") or default_app, flags)


def store_url(given: str | None, env: Mapping[str, str]) -> str:
    """The store to use: as given, by LOOM_STORE, or SQLite in the state folder, which is made if it is not there."""
    name, url = ("--store", given) if given else ("LOOM_STORE", env.get("LOOM_STORE"))
    if not url:
        return "sqlite:///" + quote(str(state_folder() / "runs.db"))
    if url.partition("://")[0].lower() in _SERVERS:  # of a store, hosts can be several: its own rules read it
        raise UsageError(f"{name} {shown_url(url)!r} is a server: name it by --url")
    return url


def _checked_server(url: str, name: str) -> str:
    parts = _parts_of(url, name)
    if parts.scheme not in _SERVERS or not parts.hostname:
        guess = server_at(url) or "http://127.0.0.1:8700"
        raise UsageError(f"{name} {shown_url(url)!r}: a server's URL, as {guess} (a store is named by --store)")
    return url


def _parts_of(url: str, name: str) -> SplitResult:
    """Raises `UsageError` naming the option or variable; what is no URL is not shown, for a key may stand in it."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  # computed, and checked, when it is asked for
    except ValueError:  # whose words are parts of the URL
        raise UsageError(f"{name} {shown_url(url)!r}: no URL (is what is special in its password escaped?)") from None
    return parts


def make_private(folder: Path) -> None:
    """Make the folder and those above it, where they are missing, for their owner alone; what is there stays as it is.
    Raises `OSError`."""
    if not folder.is_dir():
        make_private(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)


def state_folder(elsewhere: str = "name another store: --store sqlite:///./runs.db") -> Path:
    """This user's own folder for what is to be kept, readable by nobody else. Raises `UsageError`, whose hint says how
    to do without it: `elsewhere`."""
    folder = platformdirs.user_state_path("loom", appauthor=False)
    try:
        make_private(folder)
    except OSError as error:
        raise UsageError(
            f"cannot make the state folder {folder}: {error.strerror}",
            details={"hint": f"make it writable, or {elsewhere}"},
        ) from None
    return folder

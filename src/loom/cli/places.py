"""Where a command works: a server, a store, or the store in the user's own state folder."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, urlsplit

import platformdirs

from loom.model.errors import UsageError

__all__ = ["Place", "place_of", "shown", "state_folder", "store_url"]


class Place(NamedTuple):
    """The URL to connect to, and the app whose producers are known there (None: the server knows them)."""

    url: str
    app: str | None = None
    flags: str = ""
    """The command-line flags that name it again."""

    @property
    def remote(self) -> bool:
        return is_server(self.url)


def is_server(url: str) -> bool:
    return urlsplit(url).scheme in ("http", "https")


def place_of(
    url: str | None, store: str | None, app: str | None, *, default_app: str | None = None, env: Mapping[str, str]
) -> Place:
    """Flags first; then LOOM_URL; then LOOM_STORE and LOOM_APP; then the state folder and `default_app`.

    Raises `UsageError` for flags that contradict each other, and for a URL where it cannot be.
    """
    if url and (store or app):
        raise UsageError(f"--url and --{'store' if store else 'app'} contradict each other: a server has its own")
    if not url and not store and not app:
        url = env.get("LOOM_URL") or None
        flags = ""
    else:
        flags = f" --url {shlex.quote(url)}" if url else f" --store {shlex.quote(store)}" if store else ""
    if url:
        if not is_server(url):
            raise UsageError(f"--url {url!r}: a server's URL, as http://127.0.0.1:8700 (a store is named by --store)")
        return Place(url, None, flags)
    return Place(store_url(store, env), app or env.get("LOOM_APP") or default_app, flags)


def store_url(given: str | None, env: Mapping[str, str]) -> str:
    """The store to use: as given, by LOOM_STORE, or SQLite in the state folder, which is made if it is not there."""
    url = given or env.get("LOOM_STORE") or None
    if url is None:
        return "sqlite:///" + quote(str(state_folder() / "runs.db"))
    if is_server(url):
        raise UsageError(f"--store {url!r} is a server: name it by --url")
    return url


def shown(url: str) -> str:
    """`url` without a user's name or password in it."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() if "@" in parts.netloc else url


def state_folder() -> Path:
    """This user's own folder for what is to be kept, readable by nobody else. Raises `UsageError`."""
    folder = platformdirs.user_state_path("loom", appauthor=False)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"cannot make the state folder {folder}: {error.strerror}",
            details={
                "hint": f"make it writable, or name another store: --store sqlite:///{os.path.join('.', 'runs.db')}"
            },
        ) from None
    return folder

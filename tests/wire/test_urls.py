"""A URL is shown without its secrets, also when it cannot be read; and nothing else shows it."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import loom
from loom.cli.places import place_of, store_url
from loom.connect import open_store
from loom.producers.llm import Anthropic, OpenAICompatible
from loom.remote.connections import Connections
from loom.stores.redis import parse_url
from loom.wire.urls import shown_url


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("memory://", "memory://"),
        ("sqlite:///runs.db", "sqlite:///runs.db"),
        ("sqlite:////tmp/a@b.db?durability=process", "sqlite:////tmp/a@b.db?durability=process"),
        ("redis://user:secret@host:6379/0", "redis://host:6379/0"),
        ("rediss://:secret@host?retention=1h&prefix=p", "rediss://host?retention=1h&prefix=p"),
        ("redis+sentinel://u:s@a:1,[::1]:2/main/3", "redis+sentinel://a:1,[::1]:2/main/3"),
        ("redis://host?sentinel_password=secret&prefix=p", "redis://host"),
        ("redis://host?pasword=secret", "redis://host"),
        ("http://127.0.0.1:8700/loom", "http://127.0.0.1:8700/loom"),
        ("http://user:secret@h/x?token=secret", "http://h/x"),
        ("redis://:sec/ret@host", "redis://…"),
        ("redis://:sec?ret@host", "redis://…"),
        ("redis://:sec#ret@host", "redis://…"),
        ("redis://user:secret", "redis://…"),
        ("user:secret@host/x@y", "…"),
        ("http://[::1", "http://…"),
        ("runs.db", "runs.db"),
        ("localhost:8700", "localhost:8700"),
        ("", ""),
        ("redis://host/\x1b[2J\n", "redis://host/\\x1b[2J\\n"),
    ],
)
def test_what_is_shown(url: str, shown: str) -> None:
    assert shown_url(url) == shown


SECRET = "s3cr3t"
FORMS = (
    "redis://:{}@host",
    "redis://user:{}@host:6379/0",
    "rediss://{}@host",
    "valkey://user:{}@host/1?prefix=p",
    "redis+sentinel://u:{}@a,b:26380/main?sentinel_password={}",
    "redis+sentinel://a/main?sentinel_password={}&prefix=p",
    "redis+cluster://u:{}@a,b",
    "redis://host?password={}",
    "http://user:{}@host:8700",
    "https://{}@host/path",
    "http://host/?password={}",
    "postgres://user:{}@host/db",
    "nope+x://user:{}@host",
    "sqlite://user:{}@host/runs.db",
    "memory://user:{}@host",
    "user:{}@host",
)

passwords = st.builds(
    lambda first, between, last: f"{SECRET}{first}{SECRET}{between}{SECRET}{last}",
    *[st.text(st.sampled_from("/?#@:&=,;[]%+ \\'\"\n\r\t\x1b\u2100\u2028é0a")) | st.text(max_size=5)] * 3,
)


def connected(url: str) -> object:
    async def attempt() -> str:
        async with asyncio.timeout(0), loom.connect(url) as client:
            return repr(client)

    return asyncio.run(attempt())


WAYS: dict[str, Callable[[str], Any]] = {
    "shown": shown_url,
    "--url": lambda url: place_of(url, None, None, env={}).flags,
    "LOOM_URL": lambda url: place_of(None, None, None, env={"LOOM_URL": url}).flags,
    "--store": lambda url: place_of(None, url, None, env={}).flags,
    "LOOM_STORE": lambda url: store_url(None, {"LOOM_STORE": url}) and "",
    "open_store": lambda url: repr(open_store(url)),
    "connect": lambda url: repr(loom.connect(url)),
    "connect_sync": lambda url: repr(loom.connect_sync(url)),
    "per_process": lambda url: repr(loom.per_process(url)),
    "asgi": lambda url: repr(loom.asgi(url)),
    "parse_url": lambda url: f"{parse_url(url)!r} {parse_url(url)}",
    "server": lambda url: f"{Connections(url)!r} {Connections(url).place}",
    "openai": lambda url: repr(OpenAICompatible(url)),
    "anthropic": lambda url: repr(Anthropic(url)),
}


def told(way: Callable[[str], Any], url: str) -> str:
    """What it gives, or what a log would say of what it raises."""
    try:
        return f"{way(url)}"
    except loom.UsageError as error:
        return "".join(traceback.format_exception_only(error)) + str(error.details)


@given(st.sampled_from(FORMS), passwords, st.booleans())
@example("redis://:{}@host", f"{SECRET}/{SECRET}", False)
@example("http://user:{}@host:8700", f"{SECRET}\u2100", False)
@example("https://{}@host/path", f"{SECRET}/", False)
@example("redis+sentinel://a/main?sentinel_password={}&prefix=p", f"{SECRET}&prefix={SECRET}", False)
def test_no_way_shows_a_password(form: str, password: str, escaped: bool) -> None:
    url = form.replace("{}", quote(password, safe="") if escaped else password)
    for name, way in WAYS.items():
        assert SECRET not in told(way, url), name


@pytest.mark.parametrize("proxy", [f"http://u:{SECRET}/x@p:1", f"nope://u:{SECRET}@p", f"http://u:p@h:{SECRET}"])
def test_a_proxy_is_not_shown(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    monkeypatch.setenv("NO_PROXY", "")

    def models(url: str) -> object:
        return OpenAICompatible(url)._http()

    def server(url: str) -> object:
        return Connections(url)._make()

    for way in (models, server):
        assert SECRET not in told(way, "https://host.example")

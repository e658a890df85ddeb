"""Where the servers are, and how one gets in: what a URL says."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from difflib import get_close_matches
from typing import Any, Literal
from urllib.parse import parse_qsl, unquote

import msgspec

from loom.model import limits
from loom.model.errors import UsageError
from loom.model.ports import Durability
from loom.wire.duration import parse_duration
from loom.wire.urls import shown_url

__all__ = ["OPTIONS", "Address", "Credentials", "Host", "Login", "host_name", "is_socket", "parse_url"]

Host = tuple[str, int]
"""A name and a port, or the path of a unix socket and 0."""

Login = tuple[str, str]
"""A user and a password."""

Credentials = Callable[[], Login | Awaitable[Login]]
"""Returns the login of one new connection. Called in the event loop each time that one is made."""

Kind = Literal["single", "sentinel", "cluster"]

_PORTS: dict[Kind, int] = {"single": 6379, "sentinel": 26379, "cluster": 6379}

OPTIONS = ("ca", "cert", "durability", "key", "prefix", "replicas", "retention", "sentinel_password", "sentinel_user")
"""What may stand behind the ``?`` of a URL."""

UNIX_OPTIONS = ("db", "durability", "password", "prefix", "replicas", "retention", "username")
"""The same of a unix socket's URL, whose path leaves no room for the database's number."""


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """How the servers are reached. `hosts`: the server; or Sentinels, which know where `service` is; or nodes of a
    cluster, one of which has to answer. `retention`: seconds that ended runs are kept. `credentials`, if given,
    replaces `user` and `password`. Never shows its passwords."""

    hosts: tuple[Host, ...]
    kind: Kind = "single"
    service: str = ""
    user: str = ""
    password: str = ""
    credentials: Credentials | None = None
    sentinel_user: str = ""
    sentinel_password: str = ""
    db: int = 0
    tls: ssl.SSLContext | None = None
    prefix: str = "loom"
    durability: Durability | None = None
    replicas: int = 1
    retention: float = limits.REDIS_RETENTION

    def __repr__(self) -> str:
        return f"<Address {self}>"

    def __str__(self) -> str:
        hosts = ",".join(host_name(host) for host in self.hosts)
        return f"{hosts}/{self.service}" if self.service else hosts


def host_name(host: Host) -> str:
    """``host:port``, or the path of a unix socket."""
    return host[0] if is_socket(host) else f"{host[0]}:{host[1]}"


def is_socket(host: Host) -> bool:
    """True for a unix socket."""
    return host[0].startswith("/")


def parse_url(url: str) -> Address:
    """The address that a URL names: ``redis://[user:password@]host[:port][/db]``, ``rediss://`` for TLS (``ca``, and
    ``cert`` with ``key``, are files), ``redis+sentinel://host,host/service[/db]``, ``redis+cluster://host,host``,
    ``unix:///path[?db=0]`` or ``redis+unix://``; in all of them ``valkey`` says the same.
    Raises `UsageError`, and never tells the password."""
    scheme, _, rest = url.partition("://")
    if scheme in ("unix", "redis+unix", "valkey+unix"):
        return _parse_socket(url, rest)
    base, _, kind = scheme.partition("+")
    if base not in ("redis", "rediss", "valkey", "valkeys") or kind not in ("", "sentinel", "cluster"):
        raise UsageError(f"{shown_url(url)!r} is no Redis URL, as redis://host")
    if "@" in rest.partition("?")[0].partition("/")[2] or "#" in rest:
        raise UsageError("a Redis URL's user and password are escaped: %2F for /, %3F for ?, %23 for #, %40 for @")
    rest, _, query = rest.partition("?")
    place, _, path = rest.partition("/")
    login, _, hosts = place.rpartition("@")
    user, _, password = login.partition(":")
    options = _options(query)
    found: Kind = kind or "single"  # type: ignore[assignment]
    service, db = _path(path, found)
    return Address(
        hosts=tuple(_host(host, _PORTS[found]) for host in (hosts or "localhost").split(",")),
        kind=found,
        service=service,
        user=unquote(user),
        password=unquote(password),
        sentinel_user=options.get("sentinel_user", ""),
        sentinel_password=options.get("sentinel_password", ""),
        db=db,
        tls=_tls(options) if base.endswith("s") and base != "redis" else None,
        prefix=_prefix(options),
        durability=_durability(options),
        replicas=_count(options),
        retention=_retention(options),
    )


def _parse_socket(url: str, rest: str) -> Address:
    """As redis-py reads it: ``unix://[user[:password]@]/path[?db=0][&username=][&password=]``."""
    if "#" in rest or "@" in rest.partition("?")[0].partition("/")[2]:
        raise UsageError("a Redis URL's user, password and path are escaped: %3F for ?, %23 for #, %40 for @")
    before, _, query = rest.partition("?")
    place, slash, path = before.partition("/")
    login, _, host = place.rpartition("@")
    user, _, password = login.partition(":")
    options = _options(query, UNIX_OPTIONS)
    if host or not slash or not path:
        raise UsageError(f"{shown_url(url)!r}: a unix socket's URL has three slashes, as unix:///run/redis.sock?db=0")
    return Address(
        hosts=((f"/{unquote(path)}", 0),),
        user=options.get("username", unquote(user)),
        password=options.get("password", unquote(password)),
        db=_path(options.get("db", ""), "single")[1],
        prefix=_prefix(options),
        durability=_durability(options),
        replicas=_count(options),
        retention=_retention(options),
    )


def _options(query: str, known: tuple[str, ...] = OPTIONS) -> dict[str, str]:
    options = dict(parse_qsl(query, keep_blank_values=True))
    for name in options:
        if name not in known:
            raise UsageError(f"a Redis URL has no option{_like(name, known)} (there are: {', '.join(known)})")
    if "sentinel_user" in options and "sentinel_password" not in options:
        raise UsageError("sentinel_user: belongs to a sentinel_password=")
    return options


def _like(name: str, known: tuple[str, ...]) -> str:
    """The name, where it is a slip of one that there is: any other may be the rest of a password."""
    return f" {name!r}" if get_close_matches(name, known, 1, 0.7) else " of that name"


def _path(path: str, kind: Kind) -> tuple[str, int]:
    service, db = "", path
    if kind == "sentinel":
        service, _, db = path.partition("/")
        if not service:
            raise UsageError("a Sentinel's URL names the service: redis+sentinel://host:26379/mymaster")
    if not db:
        return service, 0
    if not db.isascii() or not db.isdigit():
        raise UsageError("a Redis URL ends with the database's number, and what is special in a password is escaped")
    if kind == "cluster" and int(db):
        raise UsageError("a cluster has one database only: leave the number out, and set ?prefix= for several apps")
    return service, int(db)


def _host(text: str, default: int) -> Host:
    """``host``, ``host:port``, ``[v6]:port``."""
    bare, bracket, after = text.removeprefix("[").partition("]") if text.startswith("[") else (text, "", "")
    host, colon, port = (bare, *after.partition(":")[1:]) if bracket else text.partition(":")
    if colon and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise UsageError("a port is a number up to 65535, and what is special in a password is escaped")
    return host or "localhost", int(port) if colon else default


def _prefix(options: dict[str, str]) -> str:
    prefix = options.get("prefix", "loom")
    if not prefix or len(prefix) > limits.ID_LENGTH or set(prefix) & set("{}") or not prefix.isprintable():
        raise UsageError("prefix: some printable characters, no braces")
    return prefix


def _durability(options: dict[str, str]) -> Durability | None:
    named = options.get("durability")
    if named not in (None, "memory", "process", "disk", "replica"):
        raise UsageError("durability is 'memory', 'process', 'disk' or 'replica'")
    return named  # type: ignore[return-value]


def _count(options: dict[str, str]) -> int:
    count = options.get("replicas", "1")
    if not (count.isascii() and count.isdigit() and int(count) > 0):
        raise UsageError("replicas: how many have to confirm, at least 1")
    return int(count)


def _retention(options: dict[str, str]) -> float:
    text = options.get("retention")
    return limits.REDIS_RETENTION if text is None else parse_duration(text, "retention")


def _tls(options: dict[str, str]) -> ssl.SSLContext:
    files: dict[str, Any] = {name: options.get(name) for name in ("ca", "cert", "key")}
    if files["key"] and not files["cert"]:
        raise UsageError("key: belongs to a cert=")
    try:
        context = ssl.create_default_context(cafile=files["ca"])
        if files["cert"]:
            context.load_cert_chain(files["cert"], files["key"])
    except OSError as error:
        raise UsageError(
            f"TLS: {error.strerror or error}: {', '.join(file for file in files.values() if file)}"
        ) from None
    return context

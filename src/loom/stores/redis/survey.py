"""What `loom doctor` tells of a server: what it is, and how it is set up to lose runs."""

from __future__ import annotations

from collections.abc import Mapping

from loom.model.ports import Durability, Survey

from .client.servers import Servers

__all__ = ["cautions_of", "survey"]

_NAMES = {"redis": "Redis", "valkey": "Valkey"}

_UNTOLD = "it does not tell how it is set up: see that its maxmemory-policy is noeviction, and what its appendonly is"
_FORGETS = "what is acknowledged ends with the server: set appendonly yes there, or ask for it by ?durability=memory"


async def survey(servers: Servers, key: str, asked: Durability | None) -> Survey:
    """Of the server that has `key`, with the settings of the one that is asked first; `asked`: the durability that its
    user wants. Raises what asking raises."""
    facts = {name.decode(): value for name, value in (await servers.ask(key, "HELLO")).items()}
    name, version, mode = (facts[fact].decode() for fact in ("server", "version", "mode"))
    settings = await servers.settings("appendonly", "maxmemory-policy")
    return Survey(f"{_NAMES.get(name, name)} {version}, {mode}", cautions_of(settings, asked))


def cautions_of(settings: Mapping[str, str], asked: Durability | None) -> tuple[str, ...]:
    """What of a server's settings loses runs that its user may want to keep."""
    if not settings:
        return (_UNTOLD,)
    found = []
    policy = settings.get("maxmemory-policy", "noeviction")
    if policy != "noeviction":
        lost = "whole logs, of open runs too" if policy.startswith("allkeys") else "ended runs before their time"
        found.append(f"maxmemory-policy {policy} throws away {lost}: set noeviction there")
    if settings.get("appendonly") == "no" and asked in (None, "process", "disk"):
        found.append(_FORGETS)
    return tuple(found)

"""A URL as it is shown, wherever one is printed, logged, or named in an error: never with a secret in it."""

from __future__ import annotations

import re

from loom.model.text import escaped

__all__ = ["BAD_PROXY", "shown_url"]

BAD_PROXY = "a proxy that the environment names (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY) has no URL that can be used"
"""Replaces the HTTP client's own words, which are parts of the URL."""

_HOST = r"(\[[^\]@/?#]*\]|[^:@/?#,\[\]]*)(:[0-9]*)?"
_HOSTS = rf"{_HOST}(,{_HOST})*"
_OPTIONS = frozenset(["durability", "prefix", "replicas", "retention"])
"""Those that are shown. An option that is not known may be the rest of a password."""


def shown_url(url: str) -> str:
    """`url` without user, password and unknown options. Where it is not certain which part is a password, as
    with an unescaped ``/``, ``?``, ``#`` or ``@``, only its scheme is shown."""
    scheme, there, rest = url.partition("://")
    if not there:
        scheme, rest = "", url
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*|", scheme):
        return "…"
    place, path, options = _parts(rest)
    login, _, hosts = place.rpartition("@")
    is_file = scheme == "sqlite" and not place
    if not is_file and (
        "@" in path or "@" in options or "#" in rest or "@" in login or not re.fullmatch(_HOSTS, hosts)
    ):
        return f"{scheme}{there}…"
    return escaped(f"{scheme}{there}{hosts}{path}{_harmless(options)}")


def _parts(rest: str) -> tuple[str, str, str]:
    """The part before the path, the path, and the options behind the ``?``."""
    before, _, options = rest.partition("?")
    place, slash, path = before.partition("/")
    return place, slash + path, options


def _harmless(options: str) -> str:
    names = {option.partition("=")[0] for option in options.split("&")}
    return f"?{options}" if options and names <= _OPTIONS else ""

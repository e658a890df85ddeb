"""What a server's refusals mean here."""

from __future__ import annotations

from loom.model.errors import Damaged, LoomError, OutcomeUnknown, StoreFull, Unauthorized, Unavailable, UsageError

from .link import ReplyError

__all__ = ["Refused", "meaning_of", "refusal_of"]

_FULL = {"OOM": "it has reached its maxmemory", "MISCONF": "it cannot write to its disk"}

_LATER = frozenset(
    ["ASK", "BUSY", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "MOVED", "READONLY", "TRYAGAIN", "UNBLOCKED", "NOREPLICAS"]
)
"""The server cannot now; the same may be asked again."""

_LOGIN = frozenset(["DENIED", "NOAUTH", "NOPERM", "WRONGPASS"])

_UNDER_US = "The user executing the script"
"""How refusals begin of what a function of ours asks for."""


class Refused(Exception):
    """One of our own functions says no: by a word, and what it adds."""

    def __init__(self, word: str, *more: str) -> None:
        super().__init__(word, *more)
        self.word = word
        self.more = more


def refusal_of(error: ReplyError) -> Refused | None:
    """What one of our functions means by an error; None: it comes from the server."""
    ours, *words = str(error).split()
    return Refused(*words) if ours == "LOOM" and words else None


def meaning_of(error: ReplyError, name: str) -> LoomError:
    """The error of ours that a server's means; `name` says which server."""
    text = str(error)
    word = text.split(" ", 1)[0]
    if word in _FULL:
        return StoreFull(f"{name} has no room: {_FULL[word]}")
    if word in _LATER or "max number of clients" in text:
        return Unavailable(f"{name} cannot now: {text[:200]}")
    if _UNDER_US in text:
        return Unauthorized(
            f"{name} does not let us do in its functions what they have to: see docs/redis.md for the rights"
        )
    if "DB index" in text or text.startswith("ERR SELECT is not allowed"):
        return UsageError(f"{name} has no database of that number: {text[:200]}")
    if word in _LOGIN or "ACL failure" in text or "without any password configured" in text:
        return Unauthorized(f"{name} does not let us: {_plain(text)}")
    if word == "WRONGTYPE" or "user_function:" in text:  # one of ours met what none of ours has written
        return Damaged(f"{name} holds what cannot be read: {text[:200]}")
    if "unknown command" in text:
        return UsageError(f"{name} does not know what it is asked: Redis 7.0 or newer, or Valkey 8, is needed")
    return OutcomeUnknown(f"{name} failed: {text[:200]}", retryable=False)


def _plain(text: str) -> str:
    """Without what may be somebody's name or password."""
    return text.split("'", 1)[0].strip()[:200]

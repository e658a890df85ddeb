"""What a provider says when it refuses, in whatever shape it says so, and the error that it is. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from loom.model.errors import InvalidInput, LimitExceeded, LoomError, RemoteProtocolError, Unauthorized, Unavailable
from loom.wire import json
from loom.wire.headers import retry_after

__all__ = ["TOO_LONG", "Fault", "Refusals", "fault_of", "refusal"]

AI_ERROR_CHARACTERS = 500
"""What is passed on of a provider's error message."""

_TOO_LONG = (
    "context_length_exceeded|exceed_context_size",  # codes: OpenAI's and llama.cpp's
    "maximum context length",  # OpenAI, Azure, vLLM, Mistral, DeepSeek
    "context (length|size|window|limit)",  # OpenAI, llama.cpp, LM Studio, SGLang, Ollama, Cloudflare, Anthropic
    "context the overflows",  # LM Studio
    "maximum (model|prompt) length",  # vLLM, xAI
    "(prompt|input)( \\(.*\\))? is too long",  # Anthropic, vLLM, Bedrock
    "input token count|input tokens exceed",  # Gemini, OpenAI
    "max_new_tokens`? must be|max_seq_len",  # TGI, Together, SiliconFlow
    "reduce the length of",  # Groq
)
TOO_LONG = "|".join(_TOO_LONG)
"""The words in which servers of either wire call a prompt too long; few have a code for it."""


class Refusals(NamedTuple):
    """How one provider refuses: the table that stands beside its wire."""

    key: str
    """The variable that holds its key."""
    statuses: Mapping[str, int]
    """Its words (types, codes) and the HTTP status that each stands for: in mid-stream none is told."""
    phrases: tuple[tuple[str, str], ...]
    """(pattern, code of ours): what no status tells apart, found in its words or, where it has none, its messages."""

    def code_of(self, fault: Fault) -> str | None:
        """The code of ours that the fault stands for, if it is one that a status does not tell."""
        said = f"{fault.code} {fault.message}"
        return next((code for pattern, code in self.phrases if re.search(pattern, said, re.IGNORECASE)), None)


class Fault(msgspec.Struct, frozen=True):
    """What a provider says is wrong, in whatever shape it says so. `status`: the HTTP status it amounts to, if told."""

    message: str = ""
    code: str = ""
    param: str = ""
    status: int | None = None


def fault_of(document: Any, table: Refusals) -> Fault:
    """The fault in a decoded error body or event.

    OpenAI, Anthropic and most say ``{"error": {message, type, code, param}}``, Ollama has said ``{"error": "text"}``,
    Cloudflare ``{"errors": [{code, message}]}``, older vLLM ``{"object": "error", message, code}``, FastAPI
    ``{"detail": …}``.
    """
    error = document
    if isinstance(error, dict):
        errors = error.get("errors")
        error = error.get("error") or (errors[0] if isinstance(errors, list) and errors else error)
    if not isinstance(error, dict):
        return Fault(message=error if isinstance(error, str) else "")
    message = error.get("message") or error.get("detail") or ""
    return Fault(
        message if isinstance(message, str) else json.encode(message).decode(),
        _word_of(error.get("code"), error.get("type")),
        error["param"] if isinstance(error.get("param"), str) else "",
        _status_of(table, error.get("code"), error.get("type")),
    )


def _word_of(code: Any, type: Any) -> str:
    """The code, if it is a word, else the type: llama.cpp's code is the status."""
    return str(type if type and (not code or str(code).isdigit()) else code or "")


def _status_of(table: Refusals, *words: Any) -> int | None:
    for word in map(str, words):  # providers may put anything there
        if re.fullmatch("[45][0-9][0-9]", word):
            return int(word)
        if word in table.statuses:
            return table.statuses[word]
    return None


def refusal(status: int, fault: Fault, table: Refusals, headers: Mapping[str, str] | None = None) -> LoomError:
    """The error that a provider's refusal is. Its `retryable` says whether the same question may be put again.

    408, 409, 425 and 5xx may, and 429 unless a quota is used up, as the provider's own SDKs do it; the header
    ``x-should-retry`` overrules. The message of a 401 is ours alone: providers repeat parts of the key in theirs.
    """
    said = _clean(fault.message)
    details: dict[str, Any] = {"status": status}
    if fault.code:
        details["provider_code"] = _clean(fault.code)
    if (wait := retry_after(headers or {})) is not None:
        details["retry_after"] = wait
    error = _error_for(status, said, fault, table, details)
    advice = (headers or {}).get("x-should-retry")
    if advice in ("true", "false"):
        error.retryable = advice == "true"
    return error


def _error_for(status: int, said: str, fault: Fault, table: Refusals, details: dict[str, Any]) -> LoomError:
    why = f" ({status}): {said}" if said else f" ({status})"
    if status == 401:
        return Unauthorized(f"the provider refused the key (401): see {table.key}", details=details)
    match table.code_of(fault):
        case "context_length":
            return LimitExceeded("longer than the model's context" + why, code="context_length", details=details)
        case "content_filter":
            return InvalidInput(
                "the provider's content filter refused it" + why, code="content_filter", details=details
            )
        case "quota":
            return LimitExceeded("the provider's quota is used up" + why, retryable=False, details=details)
    return _by_status(status, why, fault, details)


def _by_status(status: int, why: str, fault: Fault, details: dict[str, Any]) -> LoomError:
    if status == 403:
        return Unauthorized("the provider forbids it" + why, code="forbidden", details=details)
    if status == 413:
        return LimitExceeded("too large for the provider" + why, code="too_large", details=details)
    if status in (402, 429):
        return LimitExceeded("the provider's limit is reached" + why, retryable=status == 429, details=details)
    if status in (408, 409, 425) or status >= 500:
        return Unavailable("the provider failed" + why, details=details)
    if status in (400, 404, 422):
        if fault.param:
            details["field"] = _clean(fault.param)
        return InvalidInput("the provider refused the request" + why, details=details)
    return RemoteProtocolError("the provider does not answer as one" + why, details=details)


def _clean(text: str) -> str:
    plain = "".join(c if c.isprintable() else " " for c in text[: 4 * AI_ERROR_CHARACTERS])
    return " ".join(plain.split())[:AI_ERROR_CHARACTERS]

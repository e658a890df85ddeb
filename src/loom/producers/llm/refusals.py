"""What a provider says when it refuses, in whatever shape it says so, and the error that it is. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from loom.model import limits
from loom.model.errors import InvalidInput, LimitExceeded, LoomError, RemoteProtocolError, Unauthorized, Unavailable
from loom.wire import json
from loom.wire.headers import retry_after

__all__ = ["Fault", "fault_of", "refusal"]


class Fault(msgspec.Struct, frozen=True):
    """What a provider says is wrong, in whatever shape it says so. `status`: the HTTP status it amounts to, if told."""

    message: str = ""
    code: str = ""
    param: str = ""
    status: int | None = None


_STATUS_OF = {
    "authentication_error": 401,
    "invalid_api_key": 401,
    "permission_error": 403,
    "insufficient_quota": 429,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "invalid_request_error": 400,
    "context_length_exceeded": 400,
    "exceed_context_size_error": 400,
    "not_found_error": 404,
    "model_not_found": 404,
}
"""The words that stand for a status where none is told; any other is the provider's own fault."""


def fault_of(document: Any) -> Fault:
    """The fault in a decoded error body or event.

    OpenAI and most say ``{"error": {message, type, code, param}}``, Ollama has said ``{"error": "text"}``, Cloudflare
    ``{"errors": [{code, message}]}``, older vLLM ``{"object": "error", message, code}``, FastAPI ``{"detail": …}``.
    """
    error = document
    if isinstance(error, dict):
        errors = error.get("errors")
        error = error.get("error") or (errors[0] if isinstance(errors, list) and errors else error)
    if not isinstance(error, dict):
        return Fault(message=error if isinstance(error, str) else "")
    message = error.get("message") or error.get("detail") or ""
    code = error.get("code") or error.get("type") or ""
    return Fault(
        message if isinstance(message, str) else json.encode(message).decode(),
        str(code),
        error["param"] if isinstance(error.get("param"), str) else "",
        _status_of(error.get("code"), error.get("type")),
    )


def _status_of(*words: Any) -> int | None:
    for word in words:
        if re.fullmatch("[45][0-9][0-9]", str(word)):
            return int(word)
        if word in _STATUS_OF:
            return _STATUS_OF[word]
    return None


_SECRET_LENGTH = 8
"""Shorter keys are placeholders ("none", "ollama"): blotting them out would only garble messages."""


def refusal(status: int, fault: Fault, headers: Mapping[str, str] | None = None, *, secret: str = "") -> LoomError:
    """The error that a provider's refusal is. Its `retryable` says whether the same question may be put again.

    408, 409, 425 and 5xx may, and 429 unless a quota is used up, as the provider's own SDKs do it; the header
    ``x-should-retry`` overrules. The message of a 401 is ours alone: providers repeat parts of the key in theirs.
    """
    said = _clean(fault.message, secret)
    details: dict[str, Any] = {"status": status}
    if fault.code:
        details["provider_code"] = _clean(fault.code, secret)
    if (wait := retry_after(headers or {})) is not None:
        details["retry_after"] = wait
    error = _error_for(status, said, fault, details)
    advice = (headers or {}).get("x-should-retry")
    if advice in ("true", "false"):
        error.retryable = advice == "true"
    return error


def _error_for(status: int, said: str, fault: Fault, details: dict[str, Any]) -> LoomError:
    why = f" ({status}): {said}" if said else f" ({status})"
    if status == 401:
        return Unauthorized("the provider refused the key (401): see OPENAI_API_KEY", details=details)
    if status == 403:
        return Unauthorized("the provider forbids it" + why, code="forbidden", details=details)
    if status == 413:
        return LimitExceeded("too large for the provider" + why, code="too_large", details=details)
    if status in (402, 429):
        waiting_helps = status == 429 and fault.code != "insufficient_quota"
        return LimitExceeded("the provider's limit is reached" + why, retryable=waiting_helps, details=details)
    if status in (408, 409, 425) or status >= 500:
        return Unavailable("the provider failed" + why, details=details)
    if status in (400, 404, 422):
        if fault.param:
            details["field"] = fault.param
        return InvalidInput("the provider refused the request" + why, details=details)
    return RemoteProtocolError("the provider does not answer as one" + why, details=details)


def _clean(text: str, secret: str) -> str:
    if len(secret) >= _SECRET_LENGTH:
        text = text.replace(secret, "[key]")
    plain = "".join(c if c.isprintable() else " " for c in text[: 4 * limits.AI_ERROR_CHARACTERS])
    return " ".join(plain.split())[: limits.AI_ERROR_CHARACTERS]

"""Which model an environment names."""

from __future__ import annotations

from collections.abc import Mapping

from loom.model.ai import AI

__all__ = ["ai_from_environment"]


def ai_from_environment(env: Mapping[str, str]) -> AI | None:
    """The model that the variables name, not yet connected; None if they name none.

    ``OPENAI_BASE_URL`` or ``OPENAI_API_KEY``: that server, or OpenAI's own, with ``OPENAI_MODEL`` if it is set. Else
    ``ANTHROPIC_BASE_URL`` or ``ANTHROPIC_API_KEY``: the same with Anthropic's. Where both are named, a model that is
    named for one of them alone decides. Empty variables count as unset. Raises `UsageError` for a URL or key that
    cannot be one.
    """
    openai, anthropic = _named(env, "OPENAI"), _named(env, "ANTHROPIC")
    if anthropic and (not openai or (env.get("ANTHROPIC_MODEL") and not env.get("OPENAI_MODEL"))):
        return _anthropic(env)
    return _openai(env) if openai else None


def _named(env: Mapping[str, str], provider: str) -> bool:
    return bool(env.get(f"{provider}_BASE_URL") or env.get(f"{provider}_API_KEY"))


def _anthropic(env: Mapping[str, str]) -> AI:
    from .anthropic import ANTHROPIC_URL, Anthropic  # the HTTP client takes 0.1 s to import

    base_url, key, model = (env.get(f"ANTHROPIC_{name}") or None for name in ("BASE_URL", "API_KEY", "MODEL"))
    return Anthropic(base_url or ANTHROPIC_URL, api_key=key, model=model)


def _openai(env: Mapping[str, str]) -> AI:
    from .openai import OPENAI_URL, OpenAICompatible  # as above

    base_url, key, model = (env.get(f"OPENAI_{name}") or None for name in ("BASE_URL", "API_KEY", "MODEL"))
    return OpenAICompatible(base_url or OPENAI_URL, api_key=key, model=model)

"""Which model an environment names."""

from __future__ import annotations

from collections.abc import Mapping

from loom.model.ports import AI

from .builtin import MarkovWriter

__all__ = ["ai_from_environment"]


def ai_from_environment(env: Mapping[str, str]) -> AI:
    """The model that the variables name; the built-in writer, which needs no key and no network, if they name none.

    ``OPENAI_BASE_URL`` or ``OPENAI_API_KEY``: that server, or OpenAI's own, with ``OPENAI_MODEL`` if it is set. Empty
    variables count as unset. Raises `UsageError` for a URL or key that cannot be one.
    """
    base_url, key, model = (env.get(f"OPENAI_{name}") or None for name in ("BASE_URL", "API_KEY", "MODEL"))
    if base_url is None and key is None:
        return MarkovWriter()
    from .openai import OPENAI_URL, OpenAICompatible  # the HTTP client takes 0.1 s to import

    return OpenAICompatible(base_url or OPENAI_URL, api_key=key, model=model)

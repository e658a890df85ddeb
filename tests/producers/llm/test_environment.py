"""Which model an environment names."""

from __future__ import annotations

import subprocess
import sys

import pytest

from loom.model.errors import UsageError
from loom.producers.llm import ai_from_environment

from .anthropic_recordings import text
from .provider import Provider, chunked, events, said


@pytest.mark.parametrize("env", [{}, {"OPENAI_BASE_URL": "", "OPENAI_API_KEY": ""}, {"OPENAI_MODEL": "m"}])
def test_nothing_names_a_model(env: dict[str, str]) -> None:
    assert ai_from_environment(env) is None


@pytest.mark.parametrize(
    ("env", "place"),
    [
        ({"OPENAI_API_KEY": "sk-secret"}, "https://api.openai.com/v1"),
        ({"OPENAI_BASE_URL": "http://localhost:11434/v1"}, "http://localhost:11434/v1"),
        ({"OPENAI_BASE_URL": "http://localhost:1/v1", "OPENAI_API_KEY": "sk-secret"}, "http://localhost:1/v1"),
    ],
)
def test_a_url_or_a_key_names_a_server(env: dict[str, str], place: str) -> None:
    assert repr(ai_from_environment(env)) == f"<OpenAICompatible {place}>"


@pytest.mark.parametrize(
    ("env", "shown"),
    [
        ({"ANTHROPIC_API_KEY": "k"}, "<Anthropic https://api.anthropic.com>"),
        ({"ANTHROPIC_BASE_URL": "http://localhost:1"}, "<Anthropic http://localhost:1>"),
        ({"ANTHROPIC_API_KEY": "k", "OPENAI_API_KEY": "k"}, "<OpenAICompatible https://api.openai.com/v1>"),
        (
            {"ANTHROPIC_API_KEY": "k", "OPENAI_API_KEY": "k", "ANTHROPIC_MODEL": "claude-x"},
            "<Anthropic https://api.anthropic.com>",
        ),
        (
            {"ANTHROPIC_API_KEY": "k", "OPENAI_API_KEY": "k", "ANTHROPIC_MODEL": "claude-x", "OPENAI_MODEL": "m"},
            "<OpenAICompatible https://api.openai.com/v1>",
        ),
        ({"ANTHROPIC_MODEL": "claude-x", "OPENAI_API_KEY": "k"}, "<OpenAICompatible https://api.openai.com/v1>"),
    ],
)
def test_which_of_two_providers_it_is(env: dict[str, str], shown: str) -> None:
    assert repr(ai_from_environment(env)) == shown


def test_what_can_be_no_url_is_told() -> None:
    with pytest.raises(UsageError, match="base URL"):
        ai_from_environment({"OPENAI_BASE_URL": "localhost:11434"})


@pytest.mark.anyio
async def test_the_server_is_asked_for_the_model_that_is_named() -> None:
    async with Provider() as provider:
        provider.play(chunked(events(said("Hello", "stop"), b"[DONE]")))
        ai = ai_from_environment({"OPENAI_BASE_URL": provider.url, "OPENAI_API_KEY": "k", "OPENAI_MODEL": "small"})
        assert ai is not None
        assert await ai.complete("hi") == "Hello"
        await ai.aclose()
    assert provider.requests[0].body["model"] == "small"
    assert provider.requests[0].headers["authorization"] == "Bearer k"


@pytest.mark.anyio
async def test_anthropic_is_asked_for_the_model_that_is_named() -> None:
    async with Provider() as provider:
        provider.play(chunked(text("Hello")))
        url = provider.url.removesuffix("/v1")
        ai = ai_from_environment({"ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": "k", "ANTHROPIC_MODEL": "small"})
        assert ai is not None
        assert await ai.complete("hi") == "Hello"
        await ai.aclose()
    assert provider.requests[0].body["model"] == "small"
    assert provider.requests[0].headers["x-api-key"] == "k"


def test_the_built_in_writer_needs_no_http_client() -> None:
    code = "import sys, loom.producers.llm; sys.exit('httpx2' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)

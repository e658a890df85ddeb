"""The `openai` package of PyPI, `langchain-openai` and `pydantic-ai`, unmodified: they know our `base_url`, no more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI
from openai import AsyncOpenAI
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from loom.app import App
from loom.producers.llm import MarkovWriter, OpenAICompatible
from tests.producers.llm.provider import Play, Provider, events, head, said

from .chats import ANSWER, MODEL, WEATHER, chats, serving_chats
from .harness import PATIENCE, Rig, state_of

pytestmark = pytest.mark.anyio

HI: list[Any] = [{"role": "user", "content": "Tell me about rivers"}]
KEY = "secret"


@asynccontextmanager
async def client(app: App | None = None) -> AsyncIterator[tuple[AsyncOpenAI, Rig]]:
    async with (
        serving_chats(app, keys=[KEY]) as r,
        AsyncOpenAI(base_url=f"{r.address.url}/v1", api_key=KEY, max_retries=0, timeout=PATIENCE) as found,
    ):
        yield found, r


# --- openai ----------------------------------------------------------------------------------------------------------


async def test_a_stream_with_its_usage() -> None:
    async with client() as (ai, r):
        stream = await ai.chat.completions.create(
            model=MODEL, messages=HI, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
        assert [chunk.choices[0].delta.content for chunk in chunks[:5]] == ANSWER
        assert chunks[0].choices[0].delta.role == "assistant"
        assert chunks[5].choices[0].finish_reason == "stop"
        assert chunks[6].choices == []
        assert chunks[6].usage.total_tokens == 12
        assert {chunk.model for chunk in chunks} == {MODEL}
        run = stream.response.headers["x-request-id"]
        assert {chunk.id for chunk in chunks} == {f"chatcmpl-{run}"}
        assert await state_of(r, run) == "completed"


async def test_a_whole_answer() -> None:
    async with client() as (ai, r):
        answer = await ai.chat.completions.create(model="rivers", messages=HI)
        assert answer.choices[0].message.content == "".join(ANSWER)
        assert answer.usage.completion_tokens == 5
        assert await state_of(r, answer._request_id) == "completed"


async def test_the_accumulating_helper() -> None:
    async with client() as (ai, _):
        async with ai.chat.completions.stream(model="tools", messages=HI, tools=[WEATHER]) as stream:
            final = await stream.get_final_completion()
        assert final.choices[0].message.tool_calls[0].function.parsed_arguments is None
        assert final.choices[0].message.tool_calls[0].function.arguments == '{"city":"Delft"}'
        assert final.choices[0].finish_reason == "tool_calls"


@pytest.mark.parametrize("streams", [False, True])
async def test_tool_calls_there_and_back(streams: bool) -> None:
    async with client() as (ai, _):
        if streams:
            stream = await ai.chat.completions.create(model="tools", messages=HI, tools=[WEATHER], stream=True)
            calls = [call async for chunk in stream for call in chunk.choices[0].delta.tool_calls or ()]
        else:
            answer = await ai.chat.completions.create(model="tools", messages=HI, tools=[WEATHER])
            calls = answer.choices[0].message.tool_calls
        (call,) = calls
        assert (call.id, call.function.name, call.function.arguments) == ("call_1", "weather", '{"city":"Delft"}')
        asked: Any = {"role": "assistant", "content": None, "tool_calls": [
            {"id": call.id, "type": "function", "function": {"name": "weather", "arguments": "{}"}}
        ]}  # fmt: skip
        told: Any = {"role": "tool", "tool_call_id": call.id, "content": "raining"}
        answer = await ai.chat.completions.create(model="tools", messages=[*HI, asked, told], tools=[WEATHER])
        assert answer.choices[0].message.content == "It is raining."


async def test_a_refusal() -> None:
    async with client() as (ai, _):
        answer = await ai.chat.completions.create(model="refuses", messages=HI)
        assert (answer.choices[0].message.refusal, answer.choices[0].message.content) == ("I will not.", None)
        stream = await ai.chat.completions.create(model="refuses", messages=HI, stream=True)
        assert [c.choices[0].delta.refusal async for c in stream] == ["I will not.", None]


async def test_an_error_in_mid_stream() -> None:
    async with client() as (ai, _):
        stream = await ai.chat.completions.create(model="breaks", messages=HI, stream=True)
        said: list[Any] = []
        with pytest.raises(openai.APIError, match="ouch") as caught:  # noqa: PT012 (what came before counts)
            async for chunk in stream:
                said.append(chunk.choices[0].delta.content)
        assert said == ["half"]
        assert caught.value.code == "run_failed"


async def test_errors_before_the_stream() -> None:
    async with client() as (ai, r):
        with pytest.raises(openai.RateLimitError, match="too many") as busy:
            await ai.chat.completions.create(model="busy", messages=HI, stream=True)
        assert busy.value.response.headers["retry-after"] == "7"
        wrong: Any = "hot"
        with pytest.raises(openai.BadRequestError) as bad:
            await ai.chat.completions.create(model="rivers", messages=HI, temperature=wrong)
        assert (bad.value.param, bad.value.code) == ("temperature", "invalid_input")
        with pytest.raises(openai.AuthenticationError):
            await ai.with_options(api_key="wrong").models.list()
        with pytest.raises(openai.BadRequestError, match="missing required field"):
            await ai.post("/chat/completions", body={"model": "rivers"}, cast_to=object)
    async with serving_chats() as r, AsyncOpenAI(base_url=f"{r.address.url}/v1", api_key="any") as ai:
        assert [model.id async for model in ai.models.list()] == sorted(
            actor.name for actor in await r.transport.actors()
        )
        assert (await ai.models.retrieve(MODEL)).id == MODEL


async def test_what_will_fail_again_is_asked_once() -> None:
    """The client repeats a 500 by itself, unless it is told not to."""
    async with client() as (ai, r):
        with pytest.raises(openai.InternalServerError):
            await ai.with_options(max_retries=2).chat.completions.create(model="breaks", messages=HI)
        assert len(await r.store.runs.list_runs()) == 1


async def test_long_silences() -> None:
    """Longer than the status waits, and than the client would bear without a byte: it passes over the heartbeats."""
    async with client() as (ai, _):
        stream = await ai.with_options(timeout=1.0).chat.completions.create(model="thinks", messages=HI, stream=True)
        assert [chunk.choices[0].delta.content async for chunk in stream] == ["at ", "last", None]


@pytest.mark.parametrize("streams", [False, True])
async def test_leaving_closes_the_upstream_connection_within_a_second(streams: bool) -> None:
    async with Provider() as provider:
        provider.play(Play(head(200) + events(said("one ")), stay=True))
        upstream = OpenAICompatible(provider.url, model="m")
        async with client(chats(upstream)) as (ai, r):
            asking = asyncio.ensure_future(ai.chat.completions.create(model="forwards", messages=HI, stream=streams))
            await asyncio.wait_for(provider.came.wait(), PATIENCE)
            if streams:
                stream: Any = await asking
                assert (await anext(aiter(stream))).choices[0].delta.content == "one "
                await stream.close()
            else:
                asking.cancel()
            await asyncio.wait_for(provider.left.wait(), 1.0)
            (run,) = await r.store.runs.list_runs()
            assert await state_of(r, run.meta.run) == "cancelled"
        await upstream.aclose()


async def test_the_first_example_of_the_docs() -> None:
    page = (Path(__file__).parents[2] / "docs" / "openai.md").read_text()
    names: dict[str, Any] = {}
    exec(page.split("```python\n# app.py\n")[1].split("```")[0], names)
    app: App = names["app"]
    app.ai = MarkovWriter(rate=0)
    async with serving_chats(app) as r, AsyncOpenAI(base_url=f"{r.address.url}/v1", api_key="-") as ai:
        for model in ("chat", "any/other"):
            answer = await ai.chat.completions.create(model=model, messages=HI)
            assert answer.choices[0].finish_reason == "stop"
            assert answer.usage.completion_tokens > 10
            assert answer.choices[0].message.content


# --- frameworks ------------------------------------------------------------------------------------------------------


async def test_langchain() -> None:
    async with serving_chats() as r:
        url: Any = f"{r.address.url}/v1"
        chat = ChatOpenAI(model=MODEL, base_url=url, api_key=lambda: "any", max_retries=0, stream_usage=True)
        answer = await chat.ainvoke("Tell me about rivers")
        assert answer.content == "".join(ANSWER)
        pieces = [piece async for piece in chat.astream("Tell me about rivers")]
        assert "".join(str(piece.content) for piece in pieces) == "".join(ANSWER)
        assert sum(piece.usage_metadata["total_tokens"] for piece in pieces if piece.usage_metadata) == 12
        able = ChatOpenAI(model="tools", base_url=url, api_key=lambda: "any").bind_tools([WEATHER])
        (call,) = (await able.ainvoke([HumanMessage("Is it raining?")])).tool_calls
        assert (call["name"], call["args"]) == ("weather", {"city": "Delft"})
        await chat.root_async_client.close()  # which it shares with the other


async def test_pydantic_ai() -> None:
    async with serving_chats() as r:
        provider = OpenAIProvider(base_url=f"{r.address.url}/v1", api_key="any")
        agent = Agent(OpenAIChatModel(MODEL, provider=provider))
        answer = await agent.run("Tell me about rivers")
        assert answer.output == "".join(ANSWER)
        async with agent.run_stream("Tell me about rivers") as streamed:
            assert [text async for text in streamed.stream_text(delta=True, debounce_by=None)] == ANSWER
        able = Agent(OpenAIChatModel("tools", provider=provider))

        def weather(city: str) -> str:
            return f"raining in {city}"

        able.tool_plain(weather)
        assert (await able.run("Is it raining?")).output == "It is raining in Delft."
        await provider.client.close()

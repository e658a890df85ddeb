"""A test of a producer: first as the plain generator it is, then as a whole run in memory."""

import asyncio
from collections.abc import AsyncIterator

import loom
import loom.testing

app = loom.App()


@app.actor("chat")
async def chat(prompt: str, ctx: loom.Context) -> AsyncIterator[str]:
    async for token in ctx.ai.stream_completion(prompt):
        yield token


async def test_chat_streams_what_the_model_says() -> None:
    ctx = loom.testing.context(ai=loom.testing.FakeAI(["Hello", " there"]))
    assert [token async for token in chat("hi", ctx)] == ["Hello", " there"]


async def test_chat_as_a_run() -> None:
    app.ai = loom.testing.FakeAI(["Hello", " there"])
    async with loom.testing.client(app) as client:
        assert await client.execute(chat, "hi") == "Hello there"


if __name__ == "__main__":
    asyncio.run(test_chat_streams_what_the_model_says())
    asyncio.run(test_chat_as_a_run())
    print("passed")

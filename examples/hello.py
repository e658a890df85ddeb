"""A producer, an owned run, typed values."""

import asyncio
from collections.abc import AsyncIterator

import loom

app = loom.App()


@app.actor("greet")
async def greet(name: str, ctx: loom.Context) -> AsyncIterator[str]:
    for word in ("Hello, ", name, "!"):
        yield word
        await asyncio.sleep(0.05)


async def main() -> None:
    async with loom.connect("memory://", app=app, worker=True) as client:
        async with client.stream(greet, "world") as run:
            async for token in run.values():
                print(token, end="", flush=True)
        print()


if __name__ == "__main__":
    asyncio.run(main())

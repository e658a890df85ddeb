"""A producer that fails in mid-stream and, on the next attempt, goes on from what it had said."""

import asyncio
from collections.abc import AsyncIterator

import loom

app = loom.App()


@app.actor(retry=loom.Retry(attempts=3, on=(ConnectionError,), mode="continue", backoff=(0.01, 0.1)))
async def fetch(pages: int, ctx: loom.Context) -> AsyncIterator[dict[str, int]]:
    done = sum(chunk.type == "data" for chunk in ctx.previous)
    for page in range(done, pages):
        if page == 3 and ctx.attempt == 1:
            raise ConnectionError("the other side hung up")
        yield {"page": page}


async def main() -> None:
    async with loom.connect("memory://", app=app, worker=True) as client:
        async with client.stream(fetch, 6) as run:
            async for chunk in run:
                print(chunk.seq, chunk.type, chunk.data, chunk.error.message if chunk.error else "")


if __name__ == "__main__":
    asyncio.run(main())

"""A run that starts runs: while it waits for them, they run in its slot."""

import asyncio
from collections.abc import AsyncIterator

import loom

app = loom.App()


@app.actor
async def word_count(text: str) -> int:
    return len(text.split())


@app.actor
async def survey(texts: list[str], ctx: loom.Context) -> AsyncIterator[str]:
    counts = await asyncio.gather(*(ctx.client.execute(word_count, text) for text in texts))
    yield f"{sum(counts)} words"


async def main() -> None:
    async with loom.connect("memory://", app=app, worker=True, concurrency=1) as client:
        run = await client.start(survey, ["one", "two words", "and three words"])
        print(await run.result())
        for child in await client.runs(parent=run.id):
            print(child.meta.actor, child.state)


if __name__ == "__main__":
    asyncio.run(main())

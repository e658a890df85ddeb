"""A detached run on SQLite, left in mid-stream and resumed from its cursor by another client."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import loom

app = loom.App()


@app.actor
async def count(n: int) -> AsyncIterator[int]:
    for i in range(n):
        yield i
        await asyncio.sleep(0.01)


async def main(folder: Path) -> None:
    url = f"sqlite:///{folder / 'runs.db'}"
    async with loom.connect(url, app=app, worker=True) as client:
        run = await client.start(count, 20)
        cursor = None
        async for chunk in run:
            cursor = chunk.cursor
            if chunk.data == 4:
                print("leaving after", chunk.data)
                break

        async with loom.connect(url) as other:  # another process would do the same
            rest = [chunk.data async for chunk in other.run(run.id).chunks(after=cursor) if chunk.type == "data"]
    print("resumed:", rest)
    assert rest == list(range(5, 20))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(main(Path(folder)))

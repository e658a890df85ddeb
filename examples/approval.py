"""A run that asks and waits: it is told through its inbox."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import loom

app = loom.App()


@dataclass
class Approval:
    approved: bool
    by: str


@app.actor
async def deploy(version: str, ctx: loom.Context) -> AsyncIterator[str]:
    yield f"deploying {version} needs an approval"
    answer = await ctx.receive("approve", into=Approval)
    yield f"{'approved' if answer.data.approved else 'refused'} by {answer.data.by}"


async def main() -> None:
    async with loom.connect("memory://", app=app, worker=True) as client:
        run = await client.start(deploy, "1.2.3")
        async for line in run.values():
            print(line)
            if "needs" in line:
                await run.send("approve", Approval(True, "ada"))


if __name__ == "__main__":
    asyncio.run(main())

"""An agent with tools and a structured report. A scripted model stands in for a real one, so that it runs anywhere."""

import asyncio
from collections.abc import AsyncIterator

import msgspec

import loom
from loom.testing import FakeAI

SCRIPT = [
    [
        "Let me look. ",
        loom.ToolCallPart("1", "temperature", '{"city": "Oslo"}'),
        loom.ToolCallPart("2", "temperature", '{"city": "Rome"}'),
        loom.UsagePart(120, 31),
    ],
    ["Rome is warmer.", loom.UsagePart(170, 5)],
    ['{"warmest": "Ro', 'me", "degrees', '": 19}', loom.UsagePart(60, 14)],
]
app = loom.App(ai=FakeAI(SCRIPT))  # leave ai= out, and the environment says which model it is


class Report(msgspec.Struct):
    warmest: str
    degrees: float


async def temperature(city: str) -> float:
    """How warm it is in a city now, in degrees Celsius."""
    return {"Oslo": 3.0, "Rome": 19.0}[city]


@app.actor
async def agent(
    question: str, ctx: loom.Context
) -> AsyncIterator[loom.Part | loom.Chunk[object] | loom.Result[Report]]:
    async for part in ctx.ai.run_tools(question, tools=[temperature]):
        yield part
    async for report in ctx.ai.stream_object(Report, "Now as a report."):
        yield loom.Chunk("report", report.partial)
    yield loom.Result(report.value)


async def main() -> None:
    async with loom.connect("memory://", app=app, worker=True) as client:
        async with client.stream(agent, "Where is it warmer, in Oslo or in Rome?") as run:
            async for chunk in run:
                print(chunk.type, chunk.data)
            print(await run.result())
            print(await run.usage())


asyncio.run(main())

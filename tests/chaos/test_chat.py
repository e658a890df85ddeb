"""kill -9 in mid-answer, fifty times for each kind of model: what the viewer has is the run's final text."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

import loom
from loom.producers.llm import MarkovWriter
from tests.mortal import free_port

from .harness import Follower, Process, RawViewer, Seen, read_log
from .model_server import ModelServer, answer_to

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]

KILLS = 10
EACH = 5
KINDS = ("builtin", "goes-on", "starts-over")


def standing_text(seen: Seen) -> str:
    """The text that a viewer has who does what each `start` says."""
    text: list[tuple[int, str]] = []
    for cursor, type, data in seen:
        if type == "start":
            text = [(seq, token) for seq, token in text if seq <= data["kept_through"]]
        elif type == "data":
            text.append((int(cursor.split("-")[1]), data))
    return "".join(token for _, token in text)


async def all_in_mid_answer(follower: Follower, spoken: dict[str, int]) -> None:
    """Until each run has said something since `spoken` was counted."""
    while any(len(follower.seen[run]) <= count or follower.seen[run][-1][1] != "data" for run, count in spoken.items()):
        assert not follower.ended, "the runs ended before they were killed"
        follower.news.clear()
        await follower.news.wait()


async def test_kill_9_in_mid_answer_leaves_the_viewer_with_the_final_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, port = tmp_path / "runs.db", free_port()
    store = f"sqlite:///{path}"
    prompts = {f"{kind}-{n}": f"{kind}-chat" for kind in KINDS for n in range(EACH)}
    async with ModelServer() as server:
        monkeypatch.setenv("MODEL_SERVER", server.url)
        target = Process(
            "serve", "chat:app", "--store", store, "--port", str(port), "--lease", "0.5", log=tmp_path / "serve.log"
        )
        follower = Follower(store, prompts)
        follower.close()
        viewers = {run: RawViewer(port, run) for run in prompts}
        try:
            await target.start()
            async with loom.connect(store) as client:
                for run, actor in prompts.items():
                    await client.start(actor, {"prompt": run}, id=run)
            watching = asyncio.gather(follower.follow(), *(viewer.follow() for viewer in viewers.values()))
            for _ in range(KILLS):
                spoken = {run: len(seen) for run, seen in follower.seen.items()}
                await all_in_mid_answer(follower, spoken)
                await asyncio.sleep(random.uniform(0, 0.1))  # the random moment itself
                await target.kill()
                await target.start()
            async with asyncio.timeout(60):
                await watching
        finally:
            await target.stop()
    assert server.wrong == []
    async with loom.connect(store) as client:
        results = {run: await client.run(run).result() for run in prompts}
    for run, actor in prompts.items():
        log = await read_log(store, run)
        assert viewers[run].seen == log
        assert log[-1][1] == "complete"
        assert sum(type == "start" for _, type, _ in log) > KILLS
        final = standing_text(viewers[run].seen)
        assert final == results[run]
        if actor.startswith("builtin"):
            assert final == "".join(MarkovWriter(rate=0).tokens(run))
        elif actor.startswith("goes-on"):
            assert final == answer_to(run)
        else:
            assert final == server.given_whole[run][-1]

"""An OpenAI-compatible server of plain asyncio, never killed: one path goes on from a beginning, the other cannot."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any, Self, cast

TOKENS = 200
PAUSE = 0.02


class ModelServer:
    """Under ``/goes-on/v1`` the same prompt has the same answer, and a last message of the assistant's is gone on from,
    as llama.cpp does. Under ``/starts-over/v1`` each answer is another, and it does not say that it could go on."""

    def __init__(self) -> None:
        self.url = ""
        self.wrong: list[str] = []
        """Beginnings that were none."""
        self.given_whole: dict[str, list[str]] = {}
        """Answers that were sent to their end, by prompt."""
        self._answers = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._tasks: set[asyncio.Task[None]] = set()
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = cast("asyncio.Task[None]", asyncio.current_task())
        self._tasks.add(task)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await self._exchange(reader, writer)
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        _, path, _ = first.split(" ")
        goes_on = path.startswith("/goes-on/")
        if path.endswith("/models"):
            listed = {"data": [{"id": "m", "owned_by": "llamacpp" if goes_on else "somebody"}]}
            self._head(writer, "application/json")
            writer.write(json.dumps(listed).encode())
        else:
            await self._answer(json.loads(body)["messages"], goes_on, writer)
        await writer.drain()

    async def _answer(self, messages: list[dict[str, Any]], goes_on: bool, writer: asyncio.StreamWriter) -> None:
        prompt = messages[0]["content"]
        begun = messages[-1]["content"] if messages[-1]["role"] == "assistant" else ""
        self._answers += 1
        whole = answer_to(prompt if goes_on else f"{prompt} ({self._answers})")
        if not whole.startswith(begun) or (begun and not goes_on):
            self.wrong.append(begun)
        self._head(writer, "text/event-stream")
        for word in whole[len(begun) :].split(" "):
            self._event(writer, {"content": word if word == whole.rpartition(" ")[2] else word + " "}, None)
            await writer.drain()
            await asyncio.sleep(PAUSE)  # the model's own pace
        self._event(writer, {}, "stop")
        writer.write(b"data: [DONE]\n\n")
        await writer.drain()
        self.given_whole.setdefault(prompt, []).append(whole)

    def _head(self, writer: asyncio.StreamWriter, kind: str) -> None:
        writer.write(f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\nconnection: close\r\n\r\n".encode())

    def _event(self, writer: asyncio.StreamWriter, delta: dict[str, str], reason: str | None) -> None:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        writer.write(b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n")


def answer_to(prompt: str) -> str:
    """A text in which each place is known by its words."""
    return " ".join(f"{prompt}:{n}" for n in range(TOKENS)) + " end."

"""OpenAI's chat completions by hand, with FastAPI's own server-sent events: streaming, no more."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import AsyncIterable
from contextlib import aclosing
from typing import Any

from fastapi import FastAPI
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel
from sources import tokens

app = FastAPI()


class Message(BaseModel):
    role: str
    content: str


class Chat(BaseModel):
    model: str
    messages: list[Message]
    stream: bool = False


@app.post("/v1/chat/completions", response_class=EventSourceResponse)
async def complete(chat: Chat) -> AsyncIterable[ServerSentEvent]:
    head = {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": chat.model,
    }

    def event(delta: dict[str, Any], finish_reason: str | None = None) -> ServerSentEvent:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        return ServerSentEvent(raw_data=json.dumps({**head, "choices": [choice]}))

    yield event({"role": "assistant", "content": ""})
    async with aclosing(tokens(chat.messages[-1].content)) as said:
        async for token in said:
            yield event({"content": token})
    yield event({}, "stop")
    yield ServerSentEvent(raw_data="[DONE]")

"""A model server that answers what a test wants, at once: piece by piece, or what is nasty."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

__all__ = ["ENDLESS", "Model"]

ENDLESS = "Tell me everything"
"""Where this was asked, forty words come and never an end: such a run is live for as long as a test wants it."""


class Model:
    """OpenAI's completions, by prompt: `answers` holds the pieces; any other prompt is answered with itself."""

    def __init__(self) -> None:
        self.answers: dict[str, list[str]] = {}
        self._over = threading.Event()
        self.asked: list[list[dict[str, Any]]] = []
        model = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._head("application/json")
                self.wfile.write(json.dumps({"object": "list", "data": [{"id": "m"}]}).encode())

            def do_POST(self) -> None:
                messages = json.loads(self.rfile.read(int(self.headers["content-length"])))["messages"]
                model.asked.append(messages)
                prompt = messages[-1]["content"]
                self._head("text/event-stream")
                if ENDLESS in [message["content"] for message in messages]:
                    self.wfile.write("".join(_line({"content": f"word{i} "}) for i in range(40)).encode())
                    model._over.wait()
                    return
                lines = [_line({"content": piece}) for piece in model.answers.get(prompt, [prompt])]
                self.wfile.write("".join([*lines, _line({}, "stop"), "data: [DONE]\n\n"]).encode())

            def _head(self, kind: str) -> None:
                self.send_response(200)
                self.send_header("content-type", kind)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """Nothing is told: pytest has its own output."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()


def _line(delta: dict[str, str], finish: str | None = None) -> str:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    said = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    return f"data: {json.dumps(said)}\n\n"

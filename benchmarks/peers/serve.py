"""Serves an ASGI app on a free port of this machine and says which: ``python serve.py MODULE``."""

from __future__ import annotations

import importlib
import socket
import sys

import uvicorn


def main() -> None:
    app = importlib.import_module(sys.argv[1]).app
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    print(listener.getsockname()[1], flush=True)
    config = uvicorn.Config(app, loop="uvloop", http="httptools", ws="none", access_log=False, log_level="error")
    uvicorn.Server(config).run([listener])


if __name__ == "__main__":
    main()

"""Other people's servers, seen from an app inside them."""

from __future__ import annotations

import signal

__all__ = ["told_to_stop"]


def told_to_stop() -> bool:
    """Whether the server that runs this process was told to stop, as far as an app can see.

    uvicorn and gunicorn wait for open answers, some for ever, before they tell an app anything: an event stream that
    does not look for itself would keep them from ending. Whoever handles SIGTERM is a method of what serves here, and
    that says it: ``uvicorn.Server.should_exit``, ``gunicorn.workers.base.Worker.alive``. Any other handler: False.
    """
    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return getattr(server, "should_exit", False) is True or getattr(server, "alive", True) is False

"""A real Firefox over WebDriver BiDi, the few commands that tests need: Playwright cannot drive Debian's."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

__all__ = ["Tab", "firefox", "needs_firefox"]

_PATH = next(filter(None, map(shutil.which, ("firefox-esr", "firefox"))), None)
_PATIENCE = 30.0

needs_firefox = pytest.mark.skipif(_PATH is None, reason="needs Firefox (apt install firefox-esr)")


class Tab:
    """A tab: where a person would look, click and type."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._numbers = itertools.count(1)
        self.call("session.new", capabilities={})
        self._context = self.call("browsingContext.create", type="tab")["context"]

    def call(self, method: str, **params: Any) -> Any:
        """One command (WebDriver BiDi, section 3.3), and what it gives."""
        number = next(self._numbers)
        self._connection.send(json.dumps({"id": number, "method": method, "params": params}))
        while (answer := json.loads(self._connection.recv(timeout=_PATIENCE))).get("id") != number:
            pass  # an event, which nobody asked for
        assert answer["type"] == "success", answer
        return answer["result"]

    def go(self, url: str) -> None:
        self.call("browsingContext.navigate", context=self._context, url=url, wait="complete")

    def reload(self) -> None:
        self.call("browsingContext.reload", context=self._context, wait="complete")

    def value(self, expression: str) -> Any:
        """What JavaScript gives, by way of JSON; a promise is awaited."""
        result = self.call(
            "script.evaluate",
            expression=f"Promise.resolve({expression}).then(value => JSON.stringify(value ?? null))",
            target={"context": self._context},
            awaitPromise=True,
        )
        assert result["type"] == "success", result
        return json.loads(result["result"]["value"])

    def until(self, condition: str) -> None:
        """Until `condition`, an expression, holds in the page."""
        seconds = _PATIENCE - 5
        looking = f"""new Promise((found, lost) => {{
            const look = () => ({condition}) ? found(true) : setTimeout(look, 20)
            setTimeout(() => found(false), {seconds * 1000})
            look()
        }})"""
        shown = "document.body.innerText"
        assert self.value(looking), f"{condition} never held; the page says: {self.value(shown)}"

    def type(self, text: str) -> None:
        """Into what has the focus, then Enter."""
        keys = [{"type": kind, "value": key} for key in f"{text}\ue007" for kind in ("keyDown", "keyUp")]
        self.call(
            "input.performActions",
            context=self._context,
            actions=[{"type": "key", "id": "keyboard", "actions": keys}],
        )


@contextmanager
def firefox(profile: Path) -> Iterator[Tab]:
    """A tab of a browser of its own, for as long as the block lasts."""
    assert _PATH is not None
    process = subprocess.Popen(
        [_PATH, "--headless", "--no-remote", "--profile", str(profile), "--remote-debugging-port", "0"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        said = iter(process.stderr)
        address = next(filter(None, (re.search(r"BiDi listening on (ws://\S+)", line) for line in said)))[1]
        with connect(f"{address}/session", max_size=None, proxy=None) as connection:
            yield Tab(connection)
    finally:
        process.kill()
        process.wait()
        process.stderr.close()

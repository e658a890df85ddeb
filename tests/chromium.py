"""A real Chromium, driven from outside: nothing of a page is patched, and whatever it complains of is kept."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

__all__ = ["Complaints", "chromium", "needs_chromium"]

_PATH = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip

needs_chromium = pytest.mark.skipif(_PATH is None, reason="needs Chromium (apt install chromium)")

expect.set_options(timeout=20_000)


@contextmanager
def chromium() -> Iterator[Browser]:
    """The browser, for as long as the block lasts. No event loop may run in this thread meanwhile."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_PATH, args=_FLAGS)
        try:
            yield browser
        finally:
            browser.close()


class Complaints:
    """What pages report: errors, and what their policy forbade. A server that is away is none."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def listen(self, page: Page) -> None:
        page.on("pageerror", lambda error: self.heard.append(str(error)))
        page.on("console", self._note)

    def _note(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and "net::ERR_" not in message.text:
            self.heard.append(message.text)

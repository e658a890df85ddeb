"""A person with a browser in front of the page, and what that person sees."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

from tests.chromium import Complaints

from .kit import Demo

__all__ = [
    "LONGEST", "SIZES", "Reader", "answer", "ask", "check_whole", "cursors", "end", "notes", "reading", "run_of",
    "status", "wait_chunks", "wait_other",
]  # fmt: skip

LONGEST = "Tell me about schools"
"""What the built-in writer takes 4.3 s to answer: time enough to do something to it."""

SIZES = {"wide": (1280, 800), "narrow": (390, 780)}


class Reader:
    """A person with a browser: one context, any number of tabs."""

    def __init__(self, context: BrowserContext, demo: Demo) -> None:
        self.context = context
        self.demo = demo
        self.key = uuid.uuid4().hex
        self.complaints = Complaints()

    def tab(self, place: str = "") -> Page:
        page = self.context.new_page()
        self.complaints.listen(page)
        page.goto(f"{self.demo.url}/#/{place or self.key}")
        expect(status(page)).not_to_contain_text("Connecting")
        return page


@contextmanager
def reading(browser: Browser, demo: Demo, size: str = "wide") -> Iterator[Reader]:
    width, height = SIZES[size]
    context = browser.new_context(viewport={"width": width, "height": height})
    reader = Reader(context, demo)
    try:
        yield reader
    finally:
        context.close()
    assert reader.complaints.heard == []


def status(page: Page) -> Locator:
    return page.get_by_role("status")


def answer(page: Page) -> Locator:
    """The last one."""
    return page.locator(".answer .words").last


def ask(page: Page, prompt: str) -> None:
    page.get_by_label("Your message").fill(prompt)
    page.keyboard.press("Enter")


def end(page: Page) -> None:
    """Stop what is being said; it may have ended by then."""
    page.keyboard.press("Escape")
    expect(status(page)).to_have_text(re.compile("Stopped|Complete"))


def wait_chunks(page: Page, count: int) -> None:
    """Until so many chunks of the run that is shown have come."""
    page.locator(".chunk").nth(count - 1).wait_for(state="attached")


def wait_other(page: Page, run: str, chunks: int) -> None:
    """Until another run than `run` is shown, and so many of its chunks have come: `run` may have had as many."""
    expect(page.locator("#trace-run")).not_to_have_text(f"run {run}")
    wait_chunks(page, chunks)


def run_of(page: Page) -> str:
    """The run whose events are shown."""
    return (page.locator("#trace-run").text_content() or "").removeprefix("run ")


def cursors(page: Page) -> list[str]:
    found: list[str] = page.locator(".chunk").evaluate_all("rows => rows.map(row => row.dataset.cursor)")
    return found


def notes(page: Page) -> list[str]:
    return page.locator(".note").all_text_contents()


def check_whole(page: Page, demo: Demo) -> None:
    """The answer and its events are exactly the log's, each once, in order."""
    run = run_of(page)
    assert answer(page).text_content() == demo.text(run)
    assert cursors(page) == [cursor for cursor, _ in demo.log(run)]
    assert page.locator(".note.fault").count() == 0

"""Takes the picture of the demo's page. ``python docs/assets/picture.py`` writes demo.png. It needs Chromium,
and Pillow besides the development requirements.

A real `loom demo` is asked, and killed in mid-answer and started again, so that the picture shows the page going on.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

PICTURE = Path(__file__).parent / "demo.png"
COLOURS = 96


def start(state: str, port: int) -> tuple[subprocess.Popen[str], str]:
    """The demo, and its address."""
    command = [sys.executable, "-m", "loom", "demo", "--no-browser", "--port", str(port)]
    env = {name: value for name, value in os.environ.items() if not name.startswith("OPENAI_")}
    process = subprocess.Popen(command, env={**env, "XDG_STATE_HOME": state}, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if "Ctrl-C" in line:
            break
    found = re.search(r"http://\S+", said)
    assert found is not None, said
    return process, found[0]


def ask(page: Page, prompt: str, chunks: int) -> None:
    page.get_by_label("Your message").fill(prompt)
    page.keyboard.press("Enter")
    page.locator(".turn").last.get_by_text(prompt).wait_for()
    page.locator(f".chunk >> nth={chunks}").wait_for()


def take() -> None:
    with tempfile.TemporaryDirectory() as state, sync_playwright() as playwright:
        demo, url = start(state, 0)
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 760}, color_scheme="light", reduced_motion="reduce")
        page.goto(url)
        for prompt in ("What do bees do in winter?", "A story about a clockmaker"):
            ask(page, prompt, 8)
            page.get_by_role("button", name="Stop").click()
            expect(page.get_by_role("status")).to_contain_text("Stopped")
            page.get_by_role("button", name="New conversation").click()
        ask(page, "Tell me about rivers", 70)
        demo.kill()
        demo.wait()
        expect(page.get_by_role("status")).to_contain_text("Resuming")
        before = page.locator(".chunk").count()
        demo, _ = start(state, int(url.rpartition(":")[2]))
        page.locator(f".chunk >> nth={before + 24}").wait_for(timeout=60_000)
        page.mouse.move(560, 560)
        page.locator(".note.lost").evaluate("row => row.previousElementSibling.scrollIntoView({ block: 'start' })")
        page.screenshot(path=PICTURE)
        browser.close()
        demo.kill()
        demo.wait()
    with Image.open(PICTURE) as image:
        image.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(PICTURE, optimize=True)


if __name__ == "__main__":
    take()
    print(PICTURE, PICTURE.stat().st_size)

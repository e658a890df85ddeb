"""The login of docs/frameworks.md, as it stands there: its route under uvicorn, its two readers in a real Chromium."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from tests.chromium import chromium, needs_chromium

pytestmark = needs_chromium

SECTION = (Path(__file__).parents[1] / "docs" / "frameworks.md").read_text("utf-8")
SECTION = SECTION.partition("### Your own login")[2].partition("\n### ")[0]
(ROUTE,) = re.findall(r"```python\n(.*?)```", SECTION, re.DOTALL)
BY_COOKIE, BY_TOKEN = re.findall(r"```js\n(.*?)```", SECTION, re.DOTALL)
APP = f"""
from contextlib import asynccontextmanager
import loom
from fastapi import FastAPI, Request, Response

app = loom.App()
USERS = {{"s1": "ada", "t1": "ada", "s2": "bob"}}
cut = set()

@app.actor
async def count(n: int):
    for i in range(n):
        yield i

@asynccontextmanager
async def lifespan(_):
    async with loom.connect("memory://", app=app, worker=True, drain=0) as client:
        await client.start(count.using(id="ada.1"), 3)
        yield {{"client": client}}

api = FastAPI(lifespan=lifespan)

@api.middleware("http")
async def cuts(request, call_next):
    if request.url.path == "/login":
        return Response("", headers={{"set-cookie": "session=s1; HttpOnly"}})
    if "authorization" in request.headers and "first" not in cut:     # a proxy that cuts the first stream
        cut.add("first")
        run = request.scope["state"]["client"].run("ada.1")
        chunks = [chunk async for chunk in run.chunks()][:2]
        lines = [f'id: {{chunk.cursor}}\\ndata: {{{{"type":"{{chunk.type}}"}}}}\\n\\n' for chunk in chunks]
        return Response("".join(lines) + "id: 1-", media_type="text/event-stream")
    return await call_next(request)

{ROUTE}
"""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("login")
    (folder / "login.py").write_text(APP)
    command = [sys.executable, "-m", "uvicorn", "login:api", "--port", "0"]
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        for line in server.stderr:
            if found := re.search(r"running on (http://\S+)", line):
                break
        else:
            raise AssertionError("it does not serve")
        yield found[1]
        server.kill()


@pytest.fixture
def page(url: str) -> Iterator[Page]:
    with chromium() as browser:
        page = browser.new_page()
        page.goto(f"{url}/login")
        page.context.clear_cookies()
        page.evaluate("globalThis.types = []")
        yield page


def types(page: Page, last: str) -> Any:
    page.wait_for_function("last => types.at(-1) === last", arg=last)
    return json.loads(page.evaluate("JSON.stringify(types)"))


WHOLE = ["start", "data", "data", "data", "complete"]


def test_the_login(page: Page, url: str) -> None:
    follow = f"() => {{ {BY_COOKIE}; globalThis.s = followByCookie('/chats/ada.1/events', c => types.push(c.type)) }}"
    page.evaluate(follow)
    page.wait_for_function("s.readyState === EventSource.CLOSED")  # nobody has logged in
    assert page.evaluate("types.length") == 0
    page.goto(f"{url}/login")
    page.evaluate(f"globalThis.types = []; ({follow})()")
    assert types(page, "complete") == WHOLE
    page.wait_for_function("s.readyState === EventSource.CLOSED")

    by_token = (
        "async token => { BODY; globalThis.types = []; try { await followByToken('/chats/ada.1/events', () => token,"
    )
    by_token += " c => types.push(c.type)); return 'ended' } catch (error) { return error.message } }"
    by_token = by_token.replace("BODY", BY_TOKEN)
    page.context.clear_cookies()
    assert page.evaluate(by_token, "t1") == "ended"
    assert types(page, "complete") == WHOLE  # also over the stream that is cut: nothing twice, nothing lost
    assert page.evaluate(by_token, "wrong") == "log in first"
    assert page.evaluate(by_token, "s2") == "no such chat"

"""The page as the server sends it: its files, their headers, and nothing in them that its policy forbids."""

from __future__ import annotations

import json
import re
from importlib import resources
from typing import Any

import pytest

from loom.demo.site import POLICY, Facts, pages
from tests.server.harness import Reply, rig

pytestmark = pytest.mark.anyio

FACTS = Facts("1.2.3", 42, "somebody")
FILES = {file.name: file.read_text("utf-8") for file in resources.files("loom.demo").joinpath("page").iterdir()}


async def ask(path: str, method: str = "GET", **options: Any) -> Reply:
    async with rig(pages=pages(FACTS)) as server:
        return await server.ask(method, path, **options)


async def test_every_file_is_served_as_what_it_is_under_the_policy() -> None:
    kinds = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
    for name, text in FILES.items():
        reply = await ask("/" if name == "index.html" else f"/page/{name}")
        assert reply.status == 200
        assert reply.body.decode() == text
        assert (reply.header("content-type") or "").partition(";")[0] == kinds[name.rpartition(".")[2]]
        assert reply.header("content-security-policy") == POLICY
        assert reply.header("x-content-type-options") == "nosniff"
        assert reply.header("cache-control") == "no-cache"


async def test_the_policy_lets_nothing_in_but_what_is_named() -> None:
    rules = dict(rule.strip().partition(" ")[::2] for rule in POLICY.split(";"))
    assert rules["default-src"] == "'none'"
    assert {rules[name] for name in ("script-src", "style-src", "connect-src", "img-src")} == {"'self'"}
    assert {rules[name] for name in ("base-uri", "form-action", "frame-ancestors")} == {"'none'"}
    assert "unsafe" not in POLICY


async def test_every_part_that_is_named_is_there() -> None:
    named = set(re.findall(r'(?:href|src)="page/([^"]+)"', FILES["index.html"]))
    for name, text in FILES.items():
        if name.endswith(".js"):
            named |= set(re.findall(r'from "\./([^"]+)"', text))
    assert named | {"index.html"} == set(FILES)


def test_nothing_is_inline_and_no_text_becomes_html() -> None:
    page = FILES["index.html"]
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)|javascript:|https?:", page)
    for name, text in FILES.items():
        if name.endswith(".js"):
            assert not re.search(
                r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text
            ), name


async def test_the_facts_name_the_process() -> None:
    reply = await ask("/facts.json")
    assert json.loads(reply.body) == {
        "version": "1.2.3",
        "process": 42,
        "writer": "somebody",
        "actor": "chat",
        "again": "loom demo",
    }


async def test_the_page_stands_behind_the_guard_and_beside_the_other_routes() -> None:
    assert (await ask("/", headers={"Host": "evil.example"})).status == 403
    assert (await ask("/", "HEAD")).body == b""
    assert (await ask("/", "POST")).status == 405
    assert (await ask("/healthz")).status == 200
    assert (await ask("/page/")).status == 404
    assert (await ask("/page/../site.py")).status == 404
    described = json.loads((await ask("/openapi.json")).body)["paths"]
    assert "/facts.json" not in described
    assert "/runs" in described

"""What the docs draw from tables in the code is what the code says now; what they point to is there."""

from __future__ import annotations

import ast
import asyncio
import importlib.util
import inspect
import re
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import loom
from loom import testing
from loom.cli.commands import commands
from loom.engine.declare.options import Declaration
from loom.model.options import OPTIONS

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").glob("*.md")])


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def prose_of(page: Path) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def anchors_of(page: Path) -> set[str]:
    """What its headings can be linked by, as GitHub makes it."""
    headings = re.findall(r"^#+ (.+)$", prose_of(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", ["concepts.md", "errors.md", "http.md", "reference.md"])
def test_drawn_pages_are_up_to_date(page: str) -> None:
    assert generator().drawn(page) == (ROOT / "docs" / page).read_text(), "run python docs/generate.py"


def test_every_public_name_is_in_the_reference() -> None:
    headings = re.findall(r"^### (\S+)$", (ROOT / "docs" / "reference.md").read_text(), re.MULTILINE)
    assert {name for name in headings if name.startswith("loom.") and name.count(".") == 1} == {
        f"loom.{name}" for name in loom.__all__
    }


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose_of(page)):
        if re.match(r"[a-z]+:", target):
            continue  # elsewhere
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), target
        assert there.is_relative_to(ROOT), target
        assert not anchor or anchor in anchors_of(there), target


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_file_that_is_named_is_there(page: Path) -> None:
    """What a page names in code from the project's root on, perhaps with a test behind it: ``tests/a.py::test_b``."""
    for named in re.findall(r"`((?:tests|docs|benchmarks|examples|src)(?:/[\w./-]*)?(?:::\w+)*)`", prose_of(page)):
        path, *functions = named.split("::")
        there = ROOT / path
        assert there.exists() or list(there.parent.glob(f"{there.name}*")), named
        for function in functions:
            assert re.search(rf"(def|class) {function}\b", there.read_text()), named


def test_every_promise_is_shown_by_a_test_that_is_there() -> None:
    text = (ROOT / "docs" / "guarantees.md").read_text()
    rows = [line.split("|")[1:-1] for line in text.splitlines() if re.match(r"\| P\d", line)]
    assert [row[0].strip() for row in rows] == [f"P{number}" for number in range(1, len(rows) + 1)]
    suite = "".join(path.read_text() for path in (ROOT / "src/loom/testing/conformance").glob("*.py"))
    for *_, shown in rows:
        assert re.search(r"`tests/|conformance", shown), shown
    for number in re.findall(r"^- G(\d+) ", text, re.MULTILINE):
        assert f"def test_g{number}_" in suite, f"G{number}"


def test_every_option_of_starting_is_described() -> None:
    text = (ROOT / "docs" / "client.md").read_text()
    assert [name for name in OPTIONS if f"| `{name}=" not in text] == []
    rows = re.findall(r"^\| (`.*?) \|", (ROOT / "docs" / "http.md").read_text(), re.MULTILINE)
    assert [name for name in OPTIONS if not any(f"`{name}`" in row for row in rows)] == []


def test_everything_that_an_actor_has_and_declares_is_described() -> None:
    text = (ROOT / "docs" / "actors.md").read_text()
    given = [*inspect.signature(loom.Context).parameters.keys() & vars(testing.context()).keys()]
    context = {*given, *(name for name in dir(loom.Context) if not name.startswith("_"))}
    declared = {"name", *Declaration.__annotations__}
    for name in {*context, *declared, *loom.Retry.__struct_fields__}:
        assert re.search(rf"\b{name}\b", text), name


@pytest.mark.anyio
async def test_the_page_on_actors_runs() -> None:
    page = (ROOT / "docs" / "actors.md").read_text()
    code = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)[0]
    names: dict[str, Any] = {}
    exec(compile(code, "actors.md", "exec", dont_inherit=True), names)
    async with testing.client(names["app"]) as client:
        run = await client.start("deploy", "1.2")
        await run.send("approve", "ada")
        assert await run.result() == {"version": "1.2"}
        assert "approved by ada" in [chunk.data async for chunk in run]
        assert await client.execute("total", [1, 2.5]) == 3.5
        assert await client.execute("shout", "a b") == "AB"


@pytest.mark.anyio
async def test_a_run_of_the_page_on_actors_starts_runs() -> None:
    page = (ROOT / "docs" / "actors.md").read_text().partition("## A run starts runs")[2]
    code = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)[0]
    app = loom.App()

    @app.actor
    async def chat(prompt: str) -> AsyncIterator[str]:
        yield prompt

    names: dict[str, Any] = {"app": app, "loom": loom, "asyncio": asyncio, "AsyncIterator": AsyncIterator}
    exec(compile(code, "actors.md", "exec", dont_inherit=True), names)
    async with testing.client(app) as client:
        run = await client.start("survey", {"texts": ["a b", "c"]})
        assert await run.result() == "3 wordsSum them up"
        assert [head.meta.actor for head in await client.runs(parent=run.id)] == ["chat", "word_count", "word_count"]


def test_every_command_is_listed() -> None:
    listed = (ROOT / "docs" / "cli.md").read_text().split("```")[1]
    for words in (["loom"], ["loom", "actor"], ["loom", "runs"], ["loom", "queue"], ["loom", "workers"]):
        app = commands()
        for word in words[1:]:
            app = app[word]
        for name in (name for name in app if not name.startswith("-")):
            assert re.search(rf"^{' '.join(words)} .*\b{name}\b", listed, re.MULTILINE), (words, name)


@pytest.mark.anyio
async def test_the_notebook_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    app = loom.App()

    @app.actor
    async def count(n: int) -> AsyncIterator[int]:
        for i in range(n):
            yield i

    monkeypatch.chdir(tmp_path)
    section = (ROOT / "docs" / "client.md").read_text().partition("## In a notebook")[2]
    names: dict[str, Any] = {"loom": loom, "app": app}
    for cell in re.findall(r"^```python\n(.*?)^```", section, re.DOTALL | re.MULTILINE):
        code = compile(cell, "cell", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        value = eval(code, names)
        if inspect.isawaitable(value):
            await value
    assert capsys.readouterr().out == "0\n1\n2\n"

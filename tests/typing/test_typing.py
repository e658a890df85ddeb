"""Two type checkers accept what the documentation shows, and refuse what it says is an error."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = Path(__file__).parent / "examples.py"

REFUSED = [
    "client.stream(chat, 3)",
    "client.stream(context_first)",
    "client.stream(without_context)",
    "client.stream(chat, 'a', 'b')",
    "client.stream(context_first, a='x')",
    "client.stream(without_context, b='x')",
    "client.stream(without_context, a=1, b=2)",
    "client.stream(without_context.using(key='u1'), a='x')",
    "client.stream(chat.using(key='u1'), 3)",
    "client.stream(chat.using(key=1), 'a')",
    "chat.using(labels={'user': 42})",
    "chat.using(colour='red')",
    "app.actor(timeout='2s')",
    "app.actor('a', colour='red')",
    "app.actor(key='k')",
    "loom.App().actor(priority='urgent')",
    "client.stream(context_first, 1, c='x')",
    "client.stream(context_last, 1, 'b', 2.0, b'', 'no bool')",
    "client.stream(context_last, 1, 'b', 2.0, b'', True, 'more')",
    "client.stream(context_within, 'x')",
    "await client.execute(needed_behind_context, 'x', b='y')",
    "await client.execute(context_after_many, 1, 2, 3, 4, 'five', 6, 7)",
    "await client.execute(context_by_name, 'x')",
    "await client.execute(context_or_none, 'x')",
    "await client.execute(context_or_none, 1, 'b', 3)",
    "await client.execute(context_alone, 1)",
    "x: str = await client.execute(context_after_many, 1, 2, 3, 4, 5, 6, 7)",
    "client.stream(print, 'hi')",
    "await client.start(chat, 3)",
    "await client.execute(double, 'three')",
    "await client.execute(square, 'three')",
    "x: int = await client.execute(chat, 'hi')",
    "await client.run(7).status()",
    "await client.run('r').result(timeout='30 s')",
    "client.run('r').chunks(after=7)",
    "loom.EventSourceResponse('r', cast(Request, None))",
    "loom.sse_events(client.run('r'))",
    "ai.stream_completion('hi', temperatur=1)",
    "ai.stream_parts('hi', max_tokens='many')",
    "ai.stream_object(int, 'hi', tools=[])",
    "await ai.complete('hi', output=int, tools=[])",
    "x: int = await ai.complete('hi', model='m')",
]
"""One line each; each is an error of its own."""

TEMPLATE = """
import loom
from starlette.requests import Request
from typing import cast
from tests.typing.examples import *

async def wrong(client: loom.Client, ai: loom.AI) -> None:
    {line}
"""


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("refused")
    files = [folder / f"wrong_{number}.py" for number in range(len(REFUSED))]
    for file, line in zip(files, REFUSED, strict=True):
        file.write_text(TEMPLATE.format(line=line))
    return files


def run_mypy(*files: Path) -> str:
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", *map(str, files)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
    assert done.stderr == ""
    return done.stdout


def run_pyright(*files: Path) -> list[tuple[str, str]]:
    """(file, message) of each error."""
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, *map(str, files)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=110, check=False)
    report = json.loads(done.stdout)
    assert report["summary"]["filesAnalyzed"] == len(files)
    return [(one["file"], one["message"]) for one in report["generalDiagnostics"] if one["severity"] == "error"]


def test_mypy_accepts_the_examples() -> None:
    assert run_mypy(EXAMPLES) == ""


def test_pyright_accepts_the_examples() -> None:
    assert run_pyright(EXAMPLES) == []


def test_mypy_refuses_each_wrong_line(refused: list[Path]) -> None:
    output = run_mypy(*refused)
    wrong = {match[1] for match in re.finditer(r"(wrong_\d+)\.py:8: error", output)}
    assert wrong == {file.stem for file in refused}, output


def test_pyright_refuses_each_wrong_line(refused: list[Path]) -> None:
    errors = run_pyright(*refused)
    assert {Path(file).stem for file, _ in errors} == {file.stem for file in refused}, errors
    assert not [message for _, message in errors if "import" in message.lower()]

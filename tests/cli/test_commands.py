"""The commands as a whole: their names, help, versions, and how fast they answer."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import loom
from loom.cli import main

from .kit import Loom

GROUPS = {
    (): ["actor", "demo", "doctor", "queue", "runs", "serve", "version", "worker", "workers"],
    ("actor",): ["list", "run"],
    ("runs",): ["cancel", "list", "retry", "send", "show", "tail"],
    ("queue",): ["show"],
    ("workers",): ["drain", "list"],
}


@pytest.mark.parametrize(("group", "names"), GROUPS.items())
def test_the_commands_are_these(group: tuple[str, ...], names: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*group, "--help"]) == 0
    said = capsys.readouterr().out
    words = [line.split()[1] for line in said.splitlines() if line.startswith("│ ") and line[2] not in " -"]
    assert sorted(words) == names
    assert main(group) == 0
    assert capsys.readouterr().out == said


@pytest.mark.parametrize("command", [(*group, name) for group, names in GROUPS.items() for name in names])
def test_every_command_has_help(command: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"Usage: loom {' '.join(command)}")


def test_every_option_is_documented(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
    for group, names in GROUPS.items():
        for name in names:
            main([*group, name, "--help"])
            for option in re.findall(r"--[a-z-]+", capsys.readouterr().out):
                assert option in page, f"{option} of loom {' '.join((*group, name))}"


def test_version_tells_what_counts_in_a_bug_report(loom_command: Loom) -> None:
    done = loom_command("version")
    assert done.returncode == 0
    assert done.stdout.startswith(f"loom {loom.__version__} (CPython ")
    assert "SQLite" in done.stdout
    assert loom_command("--version").stdout == f"{loom.__version__}\n"


@pytest.mark.parametrize(
    ("act", "needless"),
    [
        ("loom.cli.main(['version'])", {"uvicorn", "starlette", "httpx2", "rich.console", "cyclopts.help"}),
        ("import loom.cli.serve, loom.server.serve", {"httpx2", "rich.console", "cyclopts.help"}),
    ],
)
def test_what_a_command_does_not_need_is_not_imported(act: str, needless: set[str]) -> None:
    program = f"import sys, loom.cli; {act}; print(sorted({needless} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("wrong", [("nope",), ("actor", "nope"), ("runs", "show"), ("runs", "list", "--limit", "x")])
def test_what_is_no_command_is_one_line_with_a_hint(wrong: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(wrong) == 64
    said = capsys.readouterr()
    line, hint = said.err.splitlines()
    assert said.out == ""
    assert re.fullmatch(r"error: .* \(usage\)", line)
    assert re.fullmatch(r"hint: loom .*--help", hint)


def test_a_reader_that_leaves_is_no_error(loom_command: Loom) -> None:
    with loom_command.running("actor", "list", "--app", "app:app") as running:
        assert running.process.stdout is not None
        running.process.stdout.close()
        assert running.wait() == 141
        assert running.err == b""


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["serve", "--port", "99999"], "error: --port 99999: 0 to 65535 (usage)"),
        (["worker", "--lease", "0"], "error: --lease 0: at least 100ms (usage)"),
        (["actor", "run", "count", "--app", "app.py:app"], "did you mean app:app? (usage)"),
        (["runs", "list", "--store", "runs.db"], "'runs.db': did you mean sqlite:///runs.db? (usage)"),
        (["actor", "run", "count", "--app", "app:app", "--", "-1", "--key", "k"], "options come before it (usage)"),
    ],
)
def test_a_slip_is_answered_by_what_was_meant(loom_command: Loom, arguments: list[str], line: str) -> None:
    done = loom_command(*arguments)
    assert done.returncode == 64
    assert line in done.stderr.splitlines()[0]

"""Commands that errors and banners print work as they are printed."""

from __future__ import annotations

import re
import shlex
import signal
import socket
import subprocess
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import loom
from loom.cli import main
from loom.cli.blame import _HINTS

from .kit import Loom

SOURCE = Path(loom.__file__).parent
COMMAND = re.compile(r"\bloom (?:actor|runs|queue|workers) [a-z]+|\bloom (?:doctor|demo|serve|worker|version)\b")


@pytest.mark.parametrize(
    ("words", "better"),
    [
        (["run", "chat"], "loom actor run chat"),
        (["tail", "r", "--after", "1-2"], "loom runs tail r --after 1-2"),
        (["actor", "runn", "chat", "a b"], "loom actor run chat 'a b'"),
        (["runs", "lst"], "loom runs list"),
        (["actor", "cancel", "r"], "loom runs cancel r"),
        (["list"], "loom actor list or loom runs list or loom workers list"),
        (["queue", "list"], "loom queue show"),
        (["nope"], "loom --help"),
        (["runs", "nope"], "loom runs --help"),
    ],
)
def test_an_unknown_command_names_the_one_to_write(
    words: list[str], better: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 64
    error, hint = capsys.readouterr().err.splitlines()
    assert hint == f"hint: {better}"
    group = words[:1] if words[0] in ("actor", "runs", "queue") else []
    assert error.startswith(f"error: {' '.join(['loom', *group])} has no command ")
    for name in ("actor", "demo", "doctor", "queue", "runs", "serve", "version", "workers") if not group else ():
        assert name in error


def test_every_command_that_is_named_somewhere_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    """In all of the source's texts, of hints and banners alike."""
    named = {match for file in SOURCE.rglob("*.py") for match in COMMAND.findall(file.read_text())}
    assert {"loom runs tail", "loom doctor", "loom worker"} <= named
    for command in sorted(named):
        assert main([*command.split()[1:], "--help"]) == 0, command
    capsys.readouterr()


@pytest.mark.parametrize("code", _HINTS)
def test_the_commands_of_hints_run(loom_command: Loom, code: str) -> None:
    for command in COMMAND.findall(_HINTS[code]):
        done = loom_command(*command.split()[1:])
        assert done.returncode == 0, (command, done.stderr)


def test_packages_are_named_so_that_pip_finds_them() -> None:
    """Whatever Loom was installed from: the extra of a clone has no name of its own to install it by."""
    extras = {Requirement(line).name for line in metadata.requires("loom-streams") or () if "extra ==" in line}
    told = re.findall(r"pip install ([^\s\"'{]+)", "".join(file.read_text() for file in SOURCE.rglob("*.py")))
    assert set(told) <= extras | {"uvloop"}
    assert "hiredis" in extras


def test_the_demo_prints_the_command_that_starts_it_where_it_was(loom_command: Loom) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with loom_command.running("demo", "--no-browser", "--port", str(port)) as demo:
        printed = next(line for line in demo.until("Ctrl-C ends it").splitlines() if line.startswith("  loom demo"))
        demo.signal(signal.SIGKILL)
        demo.wait()
    with loom_command.running(*shlex.split(printed)[1:], "--no-browser") as again:
        again.until(f"http://127.0.0.1:{port}")


def test_the_curl_of_a_server_runs(loom_command: Loom) -> None:
    with loom_command.running("serve", "app:app", "--port", "0", "--store", "memory://") as server:
        text = server.until("'\n\n")  # the end of its line: it may come in parts
        line = next(line for line in text.splitlines() if line.strip().startswith("curl"))
        done = subprocess.run(shlex.split(line), capture_output=True, text=True, timeout=15, check=True)
        assert "event: complete" in done.stdout

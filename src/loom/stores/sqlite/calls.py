"""What callers submit to the threads: a call, its outcome, and what watchers are to be told of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import apsw

from loom.model.chunk import Batch
from loom.model.ports import Notice

__all__ = ["Append", "Call", "Session"]


class Session:
    """A connection, as calls use it, with what they leave for after the commit."""

    __slots__ = ("added", "db", "told")

    def __init__(self, db: apsw.Connection) -> None:
        self.db = db
        self.told: list[tuple[str, Notice]] = []
        """Logs and notices that carry what was appended; other changes are told from the file."""
        self.added: list[tuple[int, int]] = []
        """First and last ids of batches that were added."""

    def run(self, statement: str, *values: Any) -> int:
        """Execute; returns how many rows it changed."""
        self.db.execute(statement, values)
        return self.db.changes()

    def one(self, statement: str, *values: Any) -> tuple[Any, ...] | None:
        """The only row, if there is one."""
        rows = self.db.execute(statement, values).fetchall()
        return rows[0] if rows else None

    def value(self, statement: str, *values: Any) -> Any:
        """The only row's only value; None without a row."""
        row = self.one(statement, *values)
        return None if row is None else row[0]

    def all(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        return self.db.execute(statement, values).fetchall()

    def tell(self, log: str, batch: Batch, *, ended: bool = False) -> None:
        """The row just inserted is `batch`, added to `log`."""
        row = self.db.last_insert_rowid()
        self.added.append((row, row))
        self.told.append((log, Notice(batch, ended)))


class Call:
    """An act, with its arguments, whose outcome its caller awaits. The act raises `LoomError` only before it changes
    anything."""

    __slots__ = ("act", "args", "future", "outcome", "told")

    def __init__(self, future: asyncio.Future[Any], act: Callable[..., Any], *args: Any) -> None:
        self.future = future
        self.act = act
        self.args = args
        self.outcome: object = None
        self.told: Sequence[tuple[str, Notice]] = ()

    def perform(self, session: Session) -> Any:
        """In a thread."""
        return self.act(session, *self.args)

    def settle(self) -> None:
        """On the loop: give the caller the outcome, be it an error, unless he has gone."""
        if self.future.done():
            return
        if isinstance(self.outcome, BaseException):
            self.future.set_exception(self.outcome)
        else:
            self.future.set_result(self.outcome)


class Append(Call):
    """An append that commits nothing besides its batch: many are done in one step. `act` does one alone."""

    __slots__ = ("batch", "log")

    def __init__(self, future: asyncio.Future[Any], act: Callable[..., Any], log: str, batch: Batch) -> None:
        super().__init__(future, act, log, batch)
        self.log = log
        self.batch = batch

    def added(self) -> None:
        """It was stored."""
        self.outcome = self.batch.cursor
        self.told = ((self.log, Notice(self.batch)),)

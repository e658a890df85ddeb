"""The file: opened, checked, laid out; and what its faults mean."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import apsw

from loom.model import limits
from loom.model.errors import Damaged, LoomError, StoreFull, Unavailable, UsageError
from loom.model.ports import Durability

from . import sql
from .schema import APPLICATION_ID, SCHEMA, VERSION

__all__ = ["fault_of", "open_for_reading", "open_for_writing", "transaction"]

BUSY_PAUSE = 0.001
"""How often a call tries to get another process's write lock: about what a commit takes, so that processes that all
write take turns."""

WAL_BYTES = 64 << 20
"""What the write-ahead log keeps on disk after a burst."""

CACHE_BYTES = 8 << 20
"""Each connection's page cache: the indexes' hot pages of some thousand open runs."""

_SYNCHRONOUS: dict[Durability, str] = {"disk": "FULL", "process": "NORMAL"}
_CACHE = f"PRAGMA cache_size = -{CACHE_BYTES >> 10}"  # negative: in KiB
_MAKE = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_OUT_OF_REACH = (
    apsw.BusyError,
    apsw.LockedError,
    apsw.ProtocolError,
    apsw.IOError,
    apsw.CantOpenError,
    apsw.ReadOnlyError,
    apsw.PermissionsError,
    apsw.NoMemError,
    apsw.InterruptError,
)


def open_for_writing(path: str, durability: Durability, busy: float) -> apsw.Connection:
    """A connection that may write; the file is made, or brought to WAL, if it has to be.

    Raises `UsageError` for what is no Loom store, or another version's, before anything in it is changed.
    """
    with _opening(path, busy) as db:
        if not _is_laid_out(db, path):
            _make(db, path, busy)
        _set_up(db, path, durability)
    return db


def open_for_reading(path: str, busy: float) -> apsw.Connection:
    """A connection to a store that is open for writing already; the file is never made here."""
    with _opening(path, busy, apsw.SQLITE_OPEN_READWRITE) as db:
        db.execute(f"PRAGMA query_only = ON; PRAGMA temp_store = MEMORY; {_CACHE}")
    return db


@contextmanager
def transaction(db: apsw.Connection) -> Iterator[None]:
    """All or nothing, holding the write lock from the beginning."""
    db.execute(sql.BEGIN)
    try:
        yield
        db.execute(sql.COMMIT)
    except BaseException:
        if db.in_transaction:  # some faults have rolled back by themselves
            db.execute(sql.ROLLBACK)
        raise


def fault_of(error: apsw.Error, db: apsw.Connection | None) -> LoomError | None:
    """What an error of SQLite means to a caller; None: a fault of ours, or of his values."""
    if isinstance(error, apsw.FullError) or (isinstance(error, apsw.IOError) and _errno(db) in _NO_ROOM):
        return StoreFull("the disk that holds the store has no room")
    if isinstance(error, apsw.BusyError | apsw.LockedError):
        return Unavailable("another process holds the store's write lock")
    if isinstance(error, _OUT_OF_REACH):
        return Unavailable(f"the store's file is out of reach: {error}")
    if isinstance(error, apsw.CorruptError | apsw.NotADBError):
        return Damaged(f"the store's file is damaged: {error}")
    return None


def _errno(db: apsw.Connection | None) -> int:
    return 0 if db is None else db.system_errno


@contextmanager
def _opening(path: str, busy: float, flags: int = _MAKE) -> Iterator[apsw.Connection]:
    """A connection, closed again if it cannot be set up."""
    db = _connect(path, busy, flags)
    try:
        yield db
    except BaseException as error:
        refusal = _refusal(error, path, db) if isinstance(error, apsw.Error) else error
        db.close()
        raise refusal from error


def _connect(path: str, busy: float, flags: int) -> apsw.Connection:
    # SQLite gives these names to databases of one connection alone, which is no store.
    if path == ":memory:" or not path:
        raise UsageError(f"{path!r} names no file; for a store in memory use memory://")
    if flags & apsw.SQLITE_OPEN_CREATE:
        _make_private(path)
    try:
        db = apsw.Connection(path, flags, statementcachesize=2 * sql.GROUP_ROWS + 100)
    except apsw.Error as error:
        raise _refusal(error, path, None) from error
    db.set_busy_handler(_Patience(busy))
    # Plans hold for all values: otherwise (SQLITE_ENABLE_STAT4) each new bound of a range prepares its statement anew.
    db.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
    return db


def _make_private(path: str) -> None:
    """Make the file, if there is none, for its owner alone: inputs and outputs are nobody else's to read. SQLite gives
    its write-ahead log, index and journal the mode of the file (unixOpen, findCreateFileMode). A file that is there is
    not opened: closing it would let go of the locks that this process has on it (sqlite.org/howtocorrupt.html, 2.2)."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
    with suppress(OSError):  # it is there; or SQLite finds out, and says, what is wrong
        descriptor = os.open(os.path.realpath(path), flags, 0o600)
        try:
            os.fchmod(descriptor, 0o600)  # whatever the process's umask takes from its owner
        finally:
            os.close(descriptor)


class _Patience:
    """Waits for another's lock, for `busy` seconds, in short pauses: SQLite's own grow to 100 ms, in which somebody
    who commits all the time takes the lock again and again."""

    def __init__(self, busy: float) -> None:
        self._busy = busy
        self._since = 0.0

    def __call__(self, tries: int) -> bool:
        now = time.monotonic()
        if tries == 0:
            self._since = now
        if now - self._since >= self._busy:
            return False
        time.sleep(BUSY_PAUSE)
        return True


def _is_laid_out(db: apsw.Connection, path: str) -> bool:
    """False: the file is empty. Raises `UsageError` for what is no store of ours, or of another format."""
    ((application, version, schema),) = db.execute(sql.IDENTITY).fetchall()
    if (application, version, schema) == (0, 0, 0):
        return False
    if application != APPLICATION_ID:
        raise UsageError(f"{path} is an SQLite database, but no Loom store")
    assert isinstance(version, int)
    if version > VERSION:
        raise UsageError(
            f"{path} was written by a newer Loom (format {version}, this one knows {VERSION}): upgrade this one"
        )
    if version < VERSION:
        raise UsageError(
            f"{path} was written by a Loom from before the first release (format {version}, this one knows {VERSION}):"
            " give another file, or delete this one"
        )
    return True


def _make(db: apsw.Connection, path: str, busy: float) -> None:
    """Lay out an empty file; others may be doing the same."""
    # Before the first page is written. 8 kB hold a batch of 64 small chunks; free pages can be given back.
    db.execute("PRAGMA page_size = 8192; PRAGMA auto_vacuum = INCREMENTAL")
    _become_wal(db, busy)
    with transaction(db):
        if not _is_laid_out(db, path):
            db.execute(SCHEMA)
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION}")


def _set_up(db: apsw.Connection, path: str, durability: Durability) -> None:
    if db.readonly("main"):
        raise UsageError(f"cannot write to {path}")
    if db.pragma("journal_mode", "wal") != "wal":
        raise UsageError(f"{path} lies where processes cannot share memory, as on network file systems")
    db.execute(f"PRAGMA synchronous = {_SYNCHRONOUS[durability]}; PRAGMA temp_store = MEMORY")
    db.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}; {_CACHE}")
    if durability == "disk":  # macOS: fsync alone leaves writes in the drive's cache
        db.execute("PRAGMA fullfsync = ON; PRAGMA checkpoint_fullfsync = ON")


def _become_wal(db: apsw.Connection, busy: float) -> None:
    """Changing the journal mode needs the file alone, and does not wait for it: who makes it first, wins."""
    end = time.monotonic() + busy
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
        except apsw.BusyError:
            if time.monotonic() > end:
                raise
            time.sleep(limits.POLL)
        else:
            return


def _refusal(error: apsw.Error, path: str, db: apsw.Connection | None) -> LoomError:
    """Why a file cannot be opened."""
    if _errno(db) in _NO_ROOM:
        return StoreFull(f"cannot open {path}: the disk has no room")
    if isinstance(error, apsw.NotADBError):
        return UsageError(f"{path} is no SQLite database")
    if isinstance(error, apsw.CantOpenError):
        why = "its folder does not exist" if not os.path.isdir(os.path.dirname(path) or ".") else str(error)
        return UsageError(f"cannot open {path}: {why}")
    if isinstance(error, apsw.ReadOnlyError | apsw.PermissionsError):
        return UsageError(f"cannot write to {path}")
    return fault_of(error, db) or LoomError(f"cannot open {path}: {error}")

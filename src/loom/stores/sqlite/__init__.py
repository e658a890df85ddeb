"""The SQLite store: logs and a queue in one file, which the processes of one machine share."""

from .store import SqliteStore
from .upkeep import Retention

__all__ = ["Retention", "SqliteStore"]

"""The memory store: logs and a queue in this process, gone with it."""

from .store import MemoryStore

__all__ = ["MemoryStore"]

"""The memory store: the four ports in this process, gone with it."""

from .store import MemoryStore

__all__ = ["MemoryStore"]

"""`loom.tasks`, under the name by which everything from the engine upward knows it; stores stand below the engine."""

from loom.tasks import TaskSet, cancel_and_wait, spawn, wait_out

__all__ = ["TaskSet", "cancel_and_wait", "spawn", "wait_out"]

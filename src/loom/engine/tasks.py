from loom.tasks import TaskSet, cancel_and_wait, spawn, wait_out

__all__ = ["TaskSet", "cancel_and_wait", "spawn", "wait_out"]

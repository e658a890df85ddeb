"""Where in the user's own code a run failed that this process drove: its readers are not told, whoever runs it is."""

from __future__ import annotations

import logging
import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import loom
from loom.model.errors import LoomError

__all__ = ["Origin", "noticing", "spot_of"]

_OURS = Path(loom.__file__).parent


class Origin(logging.Handler):
    """Takes from the worker's log the exception that `run` failed with."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.run = ""
        self._spot = ""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if error is not None and isinstance(record.args, tuple) and record.args[:1] == (self.run,):
            self._spot = spot_of(error)

    def told(self, error: LoomError) -> LoomError:
        """`error` with the place, where that is known."""
        if self._spot:
            error.message = f"{' '.join(error.message.split())}, at {self._spot}"
            error.details = {"hint": "LOOM_DEBUG=1 shows the way there", **error.details}
        return error


@contextmanager
def noticing() -> Iterator[Origin]:
    """What fails inside the block is noticed."""
    origin = Origin()
    log = logging.getLogger("loom.worker")
    log.addHandler(origin)
    try:
        yield origin
    finally:
        log.removeHandler(origin)


def spot_of(error: BaseException) -> str:
    """The innermost line below the working directory that is none of Loom's or of an installed package's."""
    here = os.getcwd()
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.is_relative_to(here) and not path.is_relative_to(_OURS) and "site-packages" not in path.parts:
            return f"{path.relative_to(here)}:{frame.lineno} in {frame.name}"
    return ""

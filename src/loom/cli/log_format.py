"""The log of our own processes: one record is lines that nobody else can write."""

from __future__ import annotations

import logging

from loom.model.text import escaped

__all__ = ["LineFormatter", "indented", "log_to_stderr_at"]

_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class LineFormatter(logging.Formatter):
    """The message is one line. The lines of a traceback are indented, for an exception's text has line ends that would
    else begin what looks like another record; whatever steers a terminal is escaped in both."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return escaped(super().formatMessage(record))

    def formatException(self, ei: object) -> str:
        return indented(super().formatException(ei))  # type: ignore[arg-type]  # typeshed's own alias is private

    def formatStack(self, stack_info: str) -> str:
        return indented(super().formatStack(stack_info))


def indented(text: str) -> str:
    """Lines of a traceback, escaped, each behind four blanks."""
    return "\n".join(f"    {escaped(line)}" for line in text.split("\n"))


def log_to_stderr_at(level: int) -> None:
    """Unless the app has set logging up itself."""
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter(_FORMAT))
    logging.basicConfig(level=level, handlers=[handler])

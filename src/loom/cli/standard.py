"""Standard input, output and error as a command needs them: always there, and named when they fail."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import Any, TextIO

__all__ = ["INPUT", "OUTPUT", "finish", "named", "prepare", "symbol"]

INPUT = "standard input"
OUTPUT = "standard output"

_STAND_INS = (os.O_WRONLY, os.O_RDONLY, os.O_WRONLY)
"""Of a closed descriptor: reading the input and writing the output fail, as they should; errors are told to nobody."""


def prepare() -> None:
    """Open what our parent left closed, and see to it that standard output's errors name it.

    Else the next file that is opened would get the number, and a database the messages; libuv aborts over such a file.
    """
    for number, mode in enumerate(_STAND_INS):
        if not _is_open(number):
            given = os.open(os.devnull, mode)  # POSIX: the lowest number that is free
            os.set_inheritable(given, True)  # our own children's, too
    if sys.stdin is None:
        sys.stdin = os.fdopen(0, closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", closefd=False)
    if sys.stdout is sys.__stdout__:
        sys.stdout = _output(sys.stdout)


def named(error: OSError, file: str) -> OSError:
    """`error` as what happened to `file`."""
    return OSError(error.errno, error.strerror, file)


def symbol(error: OSError) -> str:
    """As ``ENOSPC``."""
    return errno.errorcode.get(error.errno or 0, "EIO")


def finish() -> None:
    """Write what is left. What cannot be written is dropped: the interpreter would try again, and tell of it."""
    for file in (sys.stdout, sys.stderr):
        try:
            file.flush()
        except OSError:
            _silence(file.fileno())


def _silence(number: int) -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, number)
    os.close(null)


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


class _Output(io.FileIO):
    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            raise named(error, OUTPUT) from None


def _output(old: TextIO | None) -> TextIO:
    """Standard output anew, set up as the interpreter's was; None: it had none."""
    raw = _Output(1, "wb", closefd=False)
    if not isinstance(old, io.TextIOWrapper):
        return io.TextIOWrapper(io.BufferedWriter(raw))
    buffer: Any = raw if old.write_through else io.BufferedWriter(raw)  # write_through: python -u
    return io.TextIOWrapper(
        buffer, old.encoding, old.errors, line_buffering=old.line_buffering, write_through=old.write_through
    )

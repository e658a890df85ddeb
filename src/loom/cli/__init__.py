"""The command line. `main` is the `loom` command; a `Show` family draws runs, `Screen` flows text over a live line."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cyclopts import CycloptsError

    from loom.model.errors import UsageError

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. Returns its exit code, which is of the one table (`loom.model.errors.CODES`), or of `blame`."""
    from .standard import finish, prepare

    before = frozenset(threading.enumerate())
    prepare()
    try:
        code = _run(arguments)
    finally:
        finish()
    _leave_behind(before, code)
    return code


def _leave_behind(before: frozenset[threading.Thread], code: int) -> None:
    """Bound the time for which the interpreter, at its end, waits for threads that an actor began. Those of an idle
    pool end then by themselves, and functions registered with `atexit` are called behind them."""
    threads = [thread for thread in threading.enumerate() if thread not in before and not thread.daemon]
    if threads:
        threading.Thread(target=_exit_past, args=(threads, code), name="loom-exit", daemon=True).start()


def _exit_past(threads: Sequence[threading.Thread], code: int) -> None:
    from loom.model import limits

    end = time.monotonic() + limits.WIND_UP
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    if any(thread.is_alive() for thread in threads):
        logging.shutdown()
        os._exit(code)


def _run(arguments: Sequence[str] | None) -> int:
    from cyclopts import CycloptsError  # what imports Loom as a library needs none of this

    from .blame import report
    from .commands import commands
    from .loops import Interrupted

    try:
        code = commands()(arguments, exit_on_error=False, print_error=False)
        sys.stdout.flush()
    except CycloptsError as error:
        return report(_usage(error, sys.argv[1:] if arguments is None else arguments))
    except KeyboardInterrupt:
        return 130
    except Interrupted as interrupted:
        return interrupted.exit
    except Exception as error:  # whatever it is becomes one line and an exit code
        return report(error)
    return code if isinstance(code, int) else 0


def _usage(error: CycloptsError, arguments: Sequence[str]) -> UsageError:
    from cyclopts import UnknownCommandError, UnknownOptionError

    from loom.model.errors import UsageError

    from .commands import unknown_command

    if isinstance(error, UnknownCommandError) and error.unused_tokens:
        return unknown_command(error.command_chain or (), error.unused_tokens)
    command = " ".join(["loom", *(error.command_chain or ())])
    message = str(error).rstrip(".")
    if isinstance(error, UnknownOptionError) and "--" in arguments:
        message = f"{message.partition('. ')[0]}, behind --: options come before it"
    return UsageError(message, details={"hint": f"{command} --help"})

"""`loom serve --reload`: the server in a process of its own, started again whenever a Python file here changes."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Sequence

from loom.model import limits
from loom.model.errors import UsageError

from .loops import Signals
from .loops import run as run_loop

__all__ = ["reload_on_changes"]

_PATIENCE = 1.0  # what runs when a file changes may go on for so long


def reload_on_changes(arguments: Sequence[str]) -> None:
    """Run `loom` with these `arguments` but ``--reload``, until we are told to stop. Raises `UsageError`."""
    try:
        import watchfiles
    except ImportError:
        hint = "python -m pip install watchfiles"
        raise UsageError("--reload needs the package watchfiles", details={"hint": hint}) from None

    command = [sys.executable, "-m", "loom", *(word for word in arguments if word != "--reload")]
    if not any(word.startswith("--drain") for word in command):
        command += ["--drain", f"{_PATIENCE:g}s"]

    async def main(signals: Signals) -> None:
        stop = asyncio.Event()
        changes = watchfiles.awatch(".", watch_filter=watchfiles.PythonFilter(), stop_event=stop)
        with signals.first(stop.set):
            await _keep_running(command, (min(path for _, path in change) async for change in changes))

    run_loop(main)


async def _keep_running(command: Sequence[str], changes: AsyncIterator[str]) -> None:
    process = await _start(command)
    try:
        async for path in changes:
            print(f"{path} changed: starting again", flush=True)
            await _end(process)
            process = await _start(command)
    finally:
        await _end(process)


async def _start(command: Sequence[str]) -> Process:
    """Apart from our terminal's signals: it is told to stop by us, once."""
    return await asyncio.create_subprocess_exec(*command, start_new_session=True)


async def _end(process: Process) -> None:
    with contextlib.suppress(ProcessLookupError):  # it has ended by itself: its app cannot be imported
        process.terminate()
    try:
        async with asyncio.timeout(limits.ABANDON_AFTER + 2 * _PATIENCE):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()

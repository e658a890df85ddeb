"""Processes of a test that die with it, also when it is killed; and ports for them."""

from __future__ import annotations

import contextlib
import random
import shutil
import socket
import threading
from collections.abc import Sequence

_PORTS = (10_000, 30_000)
"""Below those of outgoing connections: 32768 up on Linux, 49152 up elsewhere."""
_SETPRIV = shutil.which(
    "setpriv"
)  # of util-linux; elsewhere (macOS) whoever starts a process ends it as well as it can


def mortal(command: Sequence[str]) -> list[str]:
    """The command, to be killed by the kernel when this process ends, however it ends.

    Only from the main thread: the kernel watches the thread that starts it (prctl(2), PR_SET_PDEATHSIG)."""
    assert threading.current_thread() is threading.main_thread()
    return [_SETPRIV, "--pdeathsig", "KILL", *command] if _SETPRIV else list(command)


def free_port(host: str = "127.0.0.1") -> int:
    """A port that was free a moment ago, and is never given to a connection by the kernel: a server that is started
    again finds it free, and nobody who tries to reach it meanwhile is connected to itself."""
    dice = random.SystemRandom()
    while True:
        port = dice.randrange(*_PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            return port

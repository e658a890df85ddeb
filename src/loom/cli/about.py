"""`loom version`."""

from __future__ import annotations

import platform
import sys

import apsw

import loom

__all__ = ["version"]


def version() -> None:
    """The versions that count in a bug report."""
    python = f"{platform.python_implementation()} {platform.python_version()}"
    print(f"loom {loom.__version__} ({python}, SQLite {apsw.sqlitelibversion()}, {sys.platform})")

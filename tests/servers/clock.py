"""A wall clock of a process that a test can set, by libfaketime; its monotonic clock stays real."""

from __future__ import annotations

from pathlib import Path

import pytest


class Clock:
    """Give it to a server, then `jump`. That needs Debian's package libfaketime (without it the test is skipped) and
    Valkey: the library clashes with the allocator of Debian's Redis, and breaks Python's `time.sleep`."""

    def __init__(self, file: Path) -> None:
        self.file = file
        """Holds the seconds that the clock is ahead of the true time, as text."""
        self.jump(0)

    def jump(self, seconds: float) -> None:
        """From now on the process's wall clock is so many seconds ahead of the true one (behind, when negative).
        A server goes by the new time from its next turn on, within some milliseconds."""
        new = self.file.with_suffix(".new")
        new.write_text(f"{seconds:+.3f}\n")
        new.replace(self.file)  # whoever reads it meanwhile finds one of the two

    def forget(self, pid: int) -> None:
        """Remove what the library left of a process that was killed."""
        for name in (f"faketime_shm_{pid}", f"sem.faketime_sem_{pid}"):
            Path("/dev/shm", name).unlink(missing_ok=True)

    def env(self) -> dict[str, str]:
        return {
            "LD_PRELOAD": _library(),
            "FAKETIME_TIMESTAMP_FILE": str(self.file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }


def _library() -> str:
    for folder in sorted(Path("/usr/lib").glob("*/faketime")):
        return str(folder / "libfaketimeMT.so.1")
    pytest.skip("libfaketime is not installed")

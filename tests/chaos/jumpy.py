"""`loom` in a process whose wall clock is as many seconds off as a file says. The other arguments are the command's."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from loom.cli import main

true_time = time.time
offset = Path(sys.argv.pop(1))


def wrong_time() -> float:
    return true_time() + float(offset.read_text())


if __name__ == "__main__":
    time.time = wrong_time
    main()

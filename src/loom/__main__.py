"""``python -m loom``: the same as ``loom``."""

from __future__ import annotations

from loom.cli import main

if __name__ == "__main__":
    main()

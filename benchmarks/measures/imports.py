"""T13: what `import loom` costs, and what it loads."""

from __future__ import annotations

import subprocess
import sys
import time

from figures import LOOM, Figure

_HEAVY = ("starlette", "uvicorn", "httpx2", "apsw", "rich", "cyclopts", "pydantic", "uvloop", "ssl")


def measure(rounds: int) -> tuple[list[Figure], list[str]]:
    """Milliseconds beyond a bare interpreter's start; and which heavy modules an `import loom` brings along."""
    statements = {LOOM: "import loom", "fastapi": "import fastapi", "starlette": "import starlette.applications"}
    values: dict[str, list[float]] = {}
    for _ in range(max(5, 3 * rounds)):
        bare = _wall("pass")
        for name, statement in statements.items():
            values.setdefault(name, []).append(_wall(statement) - bare)
    figure = Figure("T13", "`import loom`, beyond a bare interpreter", "ms", values)
    figure.at_most(120, "≤ 120 ms")
    return [figure], _loaded()


def _wall(statement: str) -> float:
    before = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return (time.perf_counter() - before) * 1e3


def _loaded() -> list[str]:
    code = f"import sys, loom; print(*[name for name in {_HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.split()

"""Under ``python -O``, which leaves assertions out, damage is told as it is without."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

TOLD = [
    "tests/stores/sqlite/test_rows.py",
    "tests/stores/redis/test_damage.py",
    "tests/model/test_history.py::test_a_gap_is_never_passed_over",
    "tests/wire/test_json.py::test_a_line_that_does_not_begin_with_its_type_is_refused",
    "tests/engine/run/test_history.py",
    "tests/remote/test_pages.py",
    "tests/server/test_response.py::test_what_is_no_error_of_ours_is_not_answered",
]


def test_damage_is_told_when_assertions_are_left_out() -> None:
    options = ["-p", "no:cacheprovider", "-W", "ignore::pytest.PytestConfigWarning"]
    command = [sys.executable, "-O", "-B", "-m", "pytest", *options, *TOLD]
    told = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True)
    assert told.returncode == pytest.ExitCode.OK, told.stdout[-4000:] + told.stderr[-1000:]

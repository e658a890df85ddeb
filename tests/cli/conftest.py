"""What the command line's tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

from .kit import Loom


@pytest.fixture
def loom_command(tmp_path: Path) -> Loom:
    """The real command, with a state folder of this test's own."""
    return Loom(tmp_path / "state")

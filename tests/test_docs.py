"""What the docs draw from tables in the code is what the code says now."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", ["concepts.md", "errors.md"])
def test_drawn_pages_are_up_to_date(page: str) -> None:
    assert generator().drawn(page) == (ROOT / "docs" / page).read_text(), "run python docs/generate.py"

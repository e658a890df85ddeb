"""A run that fails in the process that drives it names the line that raised."""

from __future__ import annotations

from pathlib import Path

import pytest

from loom.cli.blame import location_of
from loom.wire.json import decode

from .kit import Loom

BOOM = """\
import loom

app = loom.App()


@app.actor
def boom(n: int) -> int:
    raise ValueError("kaputt")
"""


@pytest.fixture
def boom(tmp_path: Path) -> Loom:
    (tmp_path / "bad1.py").write_text(BOOM)
    return Loom(tmp_path / "state", tmp_path)


def test_the_line_that_raised_is_named(boom: Loom) -> None:
    done = boom("actor", "run", "boom", "3", "--app", "bad1:app")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "error: ValueError: kaputt, at bad1.py:8 in boom (run_failed)",
        "hint: LOOM_DEBUG=1 shows the way there",
    ]


def test_one_traceback_is_enough(boom: Loom) -> None:
    boom.env["LOOM_DEBUG"] = "1"
    done = boom("actor", "run", "boom", "3", "--app", "bad1:app")
    assert done.stderr.count("Traceback") == 1
    assert 'raise ValueError("kaputt")' in done.stderr


def test_what_others_raise_is_blamed_on_who_called_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    with pytest.raises(Exception, match="JSON") as raised:
        decode(b"{")
    assert location_of(raised.value).endswith("in test_what_others_raise_is_blamed_on_who_called_them")
    monkeypatch.chdir("/")
    assert location_of(ValueError("never raised")) == ""

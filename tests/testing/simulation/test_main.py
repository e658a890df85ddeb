"""The soak command."""

from __future__ import annotations

import pytest

from loom.testing.simulation.__main__ import main


def test_it_tells_what_it_has_seen(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seeds", "1", "--first", "3", "--weather", "usual"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("0 failed, 1 seeds")
    assert "10 runs" in told


def test_a_failure_is_shown_and_is_the_exit_code(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from .mutants import never_renews

    never_renews(monkeypatch)
    assert main(["--seeds", "1", "--weather", "fair"]) == 1
    assert "taken over from" in capsys.readouterr().out

"""Fixtures of the engine's tests."""

from __future__ import annotations

from tests.virtual import virtual_time

__all__ = ["virtual_time"]

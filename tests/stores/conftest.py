"""Failures of the shipped suites show their values."""

from __future__ import annotations

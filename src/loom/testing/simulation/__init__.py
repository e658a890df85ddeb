"""Chaos as a tool: a whole Loom in virtual time, in which one seed decides what goes wrong and when.

``report = simulate(app, [("chat", {"prompt": "hi"})], seed=7)``, then ``assert report.ok, report``. For who writes
producers, stores, or Loom itself; docs/testing.md tells how. ``python -m loom.testing.simulation --seeds 1000`` soaks.
"""

from __future__ import annotations

from .check import Outbox, Violation
from .report import Report
from .simulate import Runs, simulate
from .world import Faults

__all__ = ["Faults", "Outbox", "Report", "Runs", "Violation", "simulate"]

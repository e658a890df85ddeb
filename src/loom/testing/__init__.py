"""What tests of streaming code need: a ctx without a run, a whole Loom in memory, a scripted model.

`loom.testing.conformance` and `loom.testing.machine` prove a store; they need pytest and hypothesis and are imported
by name. So is `loom.testing.simulation`: a whole system in virtual time, in which one seed decides what goes wrong.
"""

from __future__ import annotations

from loom.testing.client import client
from loom.testing.context import FakeContext, context
from loom.testing.fake_ai import FakeAI

__all__ = ["FakeAI", "FakeContext", "client", "context"]

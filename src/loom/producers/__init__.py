"""Kinds of producers. A kind from elsewhere is a `Driver` for `Producer`, registered by `App.add`."""

from loom.engine.declare.producer import Driver, Producer

__all__ = ["Driver", "Producer"]

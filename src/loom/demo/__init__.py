"""What runs when no app is named: `loom.demo:app` for whoever may ask, `loom.demo:local` for a command's own user."""

from __future__ import annotations

from .app import app, local

__all__ = ["app", "local"]

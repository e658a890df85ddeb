"""The built-in app, `loom.demo:app`: what runs when no other app is named."""

from __future__ import annotations

from .app import app

__all__ = ["app"]

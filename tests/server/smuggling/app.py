"""The app under test: the actor that no request may start, because only bodies ask for it."""

from __future__ import annotations

import loom

app = loom.App()


@app.actor("canary")
async def canary() -> None:
    pass

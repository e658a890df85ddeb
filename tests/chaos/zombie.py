"""A worker whose own lease check is switched off: whatever it may not write, the store itself must refuse."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import Sequence

from app import app  # type: ignore[import-not-found]  # beside this script

from loom.connect import open_store
from loom.engine.run.worker import Worker, _Held
from loom.model.errors import LoomError


class Zombie(Worker):
    async def _renew(self, held: Sequence[_Held]) -> None:
        with contextlib.suppress(LoomError):
            await self._store.queue.renew_all([one.claim for one in held])


async def main(url: str, concurrency: int) -> None:
    logging.basicConfig(level=logging.INFO)
    async with (
        open_store(url) as store,
        app.resources() as resources,
        Zombie(store, app.registry, lease=1.0, concurrency=concurrency, resources=resources),
    ):
        print(f"{concurrency} runs at a time", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))

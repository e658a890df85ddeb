"""What makes a history depend on its seed alone: Loom's clocks, ids and random numbers for as long as it lasts."""

from __future__ import annotations

import gc
import os
import random
import secrets
import socket
import sys
import time
import types
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["EPOCH", "stand_ins"]

EPOCH = 1_700_000_000.0
"""Wall-clock time at the virtual clock's zero, in Unix seconds."""


@contextmanager
def stand_ins(now: Callable[[], float], seed: int) -> Iterator[None]:
    """Inside the block Loom's own modules find clocks that tell `now`, and ids drawn from `seed`; the `random` module
    is seeded, for everybody. Nothing else is changed, and all is put back: for one simulation at a time.

    Garbage is not collected meanwhile: a collection closes what it finds, at a moment that no seed decides.
    """
    replaced = {id(module): stand_in for module, stand_in in _make(now, random.Random(f"{seed} ids"))}
    places = [
        (module, name, value)
        for key, module in sorted(sys.modules.items())
        if key.startswith("loom.") and not key.startswith(__package__ or "")
        for name, value in vars(module).items()
        if id(value) in replaced
    ]
    state, collects = random.getstate(), gc.isenabled()
    random.seed(seed)
    gc.disable()
    for module, name, value in places:
        setattr(module, name, replaced[id(value)])
    try:
        yield
    finally:
        for module, name, value in places:
            setattr(module, name, value)
        random.setstate(state)
        if collects:
            gc.enable()


def _make(now: Callable[[], float], draws: random.Random) -> list[tuple[types.ModuleType, Any]]:
    return [
        (time, _copy(time, monotonic=now, time=lambda: EPOCH + now(), time_ns=lambda: int((EPOCH + now()) * 1e9))),
        (uuid, _copy(uuid, uuid4=lambda: uuid.UUID(int=draws.getrandbits(128), version=4))),
        (os, _copy(os, getpid=lambda: 1)),
        (socket, _copy(socket, gethostname=lambda: "simulated")),
        (
            secrets,
            _copy(
                secrets,
                randbelow=draws.randrange,
                token_bytes=lambda size=32: draws.randbytes(size),
                token_hex=lambda size=32: draws.randbytes(size).hex(),
            ),
        ),
    ]


def _copy(module: types.ModuleType, **other: Any) -> types.ModuleType:
    copy = types.ModuleType(module.__name__)
    copy.__dict__.update(vars(module), **other)
    return copy

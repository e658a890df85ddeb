"""The checker, on histories made by hand: each guarantee that is broken is named."""

from __future__ import annotations

from typing import Any

import pytest

from loom.model.chunk import Batch, Chunk, Page
from loom.model.cursor import Cursor
from loom.model.errors import Fenced
from loom.model.ports import Commit, Fence
from loom.model.run import Claim, Meta
from loom.testing.simulation import Faults, Outbox
from loom.testing.simulation.check import check
from loom.testing.simulation.history import Acked, Call, Fault, Happening, Logged, Seen
from loom.wire.json import make_batch

META = Meta(run="run", actor="actor")
ONE, TWO = 1_0000_0001, 2_0000_0002
LEASE = 10.0

WHOLE = make_batch(ONE, 1, [Chunk("start"), Chunk("data", "a"), Chunk("complete")])
LINES = tuple(Page((WHOLE,), WHOLE.cursor, True, True).lines())


def box(*lines: tuple[Cursor, bytes], ended: bool = True) -> Outbox:
    return Outbox("run", lines, ended)


def log(*said: tuple[int, str], ended: bool = True) -> Outbox:
    """A log of (epoch, type), seqs in order."""
    lines = [(Cursor(epoch, seq), f'{{"type":"{type}"}}'.encode()) for seq, (epoch, type) in enumerate(said, 1)]
    return box(*lines, ended=ended)


def call(at: float, name: str, *args: Any, result: Any = None, error: Exception | None = None, **options: Any) -> Call:
    order = int(at * 100)
    return Call(at, at, order, order, f"w {name}", "w", name, args, options, result, error)


def claim(worker: str, number: int, crashes: int = 0) -> Claim:
    return Claim(meta=META, worker=worker, number=number, crashes=crashes)


def claimed(at: float, worker: str, number: int, crashes: int = 0) -> Call:
    return call(at, "claim", ["default"], worker, result=claim(worker, number, crashes))


def found(outbox: Outbox | None, *history: Happening) -> list[str]:
    violations = check(history, {"run": outbox}, lease=LEASE, faults=Faults())
    return [violation.guarantee for violation in violations]


SOUND = box(*LINES)
END = call(2, "append", "run", WHOLE, Commit(state="completed"))


def test_what_is_sound_violates_nothing() -> None:
    seen = Seen(3, "viewer", "run", Page((WHOLE,), WHOLE.cursor, True, True))
    kept = claim("w", 1)
    assert found(SOUND, claimed(1, "w", 1), END, seen, call(3, "ack", kept), Acked(4, "start", "run")) == []


@pytest.mark.parametrize(
    ("outbox", "guarantee"),
    [
        (box(LINES[0], LINES[2]), "G1"),
        (log((TWO, "start"), (ONE, "data"), (TWO, "complete")), "G2"),
        (log((ONE, "data"), ended=False), "G3"),
        (log((ONE, "start"), (TWO, "data"), (TWO, "complete")), "G3"),
        (log((ONE, "start"), (ONE, "complete"), (ONE, "data")), "G4"),
        (box(*LINES, ended=False), "G4"),
        (log((ONE, "start"), ended=False), "G10"),
    ],
)
def test_a_log_that_is_wrong_by_itself(outbox: Outbox, guarantee: str) -> None:
    assert guarantee in found(outbox)


def test_a_viewer_that_was_given_something_else() -> None:
    other = make_batch(ONE, 1, [Chunk("start"), Chunk("data", "b")])
    twice = Page((WHOLE, WHOLE), WHOLE.cursor, True, True)
    assert found(SOUND, Seen(1, "viewer", "run", Page((other,), other.cursor, False, False))) == ["G5"]
    assert found(SOUND, Seen(1, "viewer", "run", twice)) == ["G5"]
    part = Page((WHOLE.slice(1, 2),), Cursor(ONE, 2), True, True)
    assert found(SOUND, Seen(1, "viewer", "run", part)) == ["G5"]  # it was told that this is the end


def test_what_was_acknowledged_and_is_lost() -> None:
    assert found(None, Acked(1, "start", "run")) == ["G10"]
    assert found(SOUND, call(1, "append", "run", Batch(ONE, 2, 2, b'{"type":"other"}\n'))) == ["G4"]
    assert found(SOUND, call(1, "append", "run", Batch(ONE, 2, 2, b"x\n"), error=Fenced("no"))) == []


def test_who_was_fenced_and_still_let_through() -> None:
    fenced = call(1, "fence", "run", "token", result=Fence(TWO, 0, False))
    assert "G2" in found(SOUND, fenced, END)


def test_who_holds_a_run_that_another_has() -> None:
    trouble = Fault(3, "w step", "pause", "w")
    assert found(SOUND, claimed(1, "w", 1), trouble, claimed(5, "other", 2, 1)) == ["G9"]
    assert found(SOUND, claimed(1, "w", 1), trouble, claimed(12, "other", 2, 1)) == []
    assert found(SOUND, claimed(1, "w", 1), claimed(12, "other", 2, 1)) == ["G9"]  # nothing had happened to it
    assert found(SOUND, claimed(1, "w", 1), trouble, claimed(12, "o", 2, 1), call(13, "renew", claim("w", 1))) == ["G9"]
    assert found(SOUND, claimed(1, "w", 2), call(2, "release", claim("w", 2)), claimed(3, "o", 1)) == ["G9"]


def test_a_run_that_is_forgotten_before_its_end() -> None:
    assert found(SOUND, claimed(1, "w", 1), call(2, "ack", claim("w", 1))) == ["G10"]


def test_a_run_that_goes_on_after_its_cancel() -> None:
    told, said = Acked(1, "cancel", "run"), WHOLE.slice(2, 2)
    assert found(SOUND, told, call(2, "append", "run", said)) == []
    assert found(SOUND, told, call(30, "append", "run", said)) == ["G10"]
    assert found(SOUND, told, Fault(5, "w step", "cut", "w"), call(30, "append", "run", said)) == []


def test_what_must_not_happen_at_all() -> None:
    assert found(SOUND, Logged(1, "boom")) == [""]

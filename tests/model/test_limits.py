"""Bounds that have to fit each other."""

from __future__ import annotations

import ast
from pathlib import Path

import loom
from loom.engine.run.worker import CLAIM_WAIT
from loom.engine.run.writer import BATCH_BYTES, BATCH_CHUNKS
from loom.model import limits
from loom.producers.llm.http import AI_BACKOFF
from loom.remote.follower import SILENCE


def test_every_bound_has_its_reason() -> None:
    """Each assignment of a number is followed by a string that says why, in `limits` and wherever one stands alone."""
    bare = []
    for path in sorted(Path(loom.__file__).parent.rglob("*.py")):
        if "testing" in path.parts or path.name == "schema.py":  # what a test is made of; a file format's numbers
            continue
        body = ast.parse(path.read_text()).body
        for statement, following in zip(body, [*body[1:], None], strict=True):
            if _is_bound(statement) and not _is_text(following):
                bare.append(f"{path.name}: {ast.unparse(statement)}")
    assert not bare, bare


def _is_bound(statement: ast.stmt) -> bool:
    """A public constant that is a number, or an expression of numbers."""
    if not isinstance(statement, ast.Assign) or not isinstance(statement.targets[0], ast.Name):
        return False
    if not statement.targets[0].id.isupper() or statement.targets[0].id.startswith("_"):
        return False
    leaves = [node for node in ast.walk(statement.value) if isinstance(node, ast.Constant)]
    operators = (ast.BinOp, ast.UnaryOp, ast.operator, ast.unaryop, ast.Tuple, ast.Load, ast.Name, ast.Constant)
    return bool(leaves) and all(
        isinstance(node, operators) and not isinstance(getattr(node, "value", 0), (str, bytes, bool))
        for node in ast.walk(statement.value)
    )


def _is_text(statement: ast.stmt | None) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def test_what_is_written_can_be_read() -> None:
    assert BATCH_BYTES <= limits.PAGE_BYTES
    assert BATCH_CHUNKS <= limits.PAGE_CHUNKS <= limits.READ_LIMIT
    assert limits.CHUNK_BYTES <= limits.EVENT_BYTES
    assert limits.INPUT_BYTES <= limits.BODY_BYTES
    assert limits.MESSAGE_BYTES <= limits.BODY_BYTES


def test_a_lease_survives_two_lost_renewals() -> None:
    assert limits.RENEW_FRACTION >= 3
    assert CLAIM_WAIT <= limits.LEASE
    assert limits.HEARTBEAT < SILENCE < limits.STALLED_VIEWER


def test_pauses_are_first_and_longest() -> None:
    for first, longest in (limits.RETRY_BACKOFF, limits.STORE_RETRY, limits.RECONNECT, AI_BACKOFF):
        assert 0 < first < longest

"""Bounds that have to fit each other."""

from __future__ import annotations

import ast
import inspect

from loom.model import limits


def test_every_bound_has_its_reason() -> None:
    """Each assignment is followed by a string that says why."""
    body = ast.parse(inspect.getsource(limits)).body
    for statement, following in zip(body, [*body[1:], None], strict=True):
        if isinstance(statement, ast.Assign):
            assert isinstance(following, ast.Expr), ast.unparse(statement)
            assert isinstance(following.value, ast.Constant), ast.unparse(statement)


def test_what_is_written_can_be_read() -> None:
    assert limits.BATCH_BYTES <= limits.PAGE_BYTES
    assert limits.BATCH_CHUNKS <= limits.PAGE_CHUNKS <= limits.READ_LIMIT
    assert limits.CHUNK_BYTES <= limits.EVENT_BYTES
    assert limits.INPUT_BYTES <= limits.BODY_BYTES
    assert limits.MESSAGE_BYTES <= limits.BODY_BYTES


def test_a_lease_survives_two_lost_renewals() -> None:
    assert limits.RENEW_FRACTION >= 3
    assert limits.CLAIM_WAIT <= limits.LEASE
    assert limits.HEARTBEAT < limits.SILENCE < limits.STALLED_VIEWER


def test_pauses_are_first_and_longest() -> None:
    for first, longest in (limits.RETRY_BACKOFF, limits.STORE_RETRY, limits.RECONNECT, limits.AI_BACKOFF):
        assert 0 < first < longest

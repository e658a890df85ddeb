"""What refusals mean: each its own error, and nothing in it that is secret."""

from __future__ import annotations

import hiredis
import pytest

from loom.model.errors import LoomError, OutcomeUnknown, StoreFull, Unauthorized, Unavailable, UsageError
from loom.stores.redis.client.replies import meaning_of, refusal_of


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("OOM command not allowed when used memory > 'maxmemory'.", StoreFull),
        ("MISCONF Errors writing to the AOF file", StoreFull),
        ("LOADING Redis is loading the dataset in memory", Unavailable),
        ("READONLY You can't write against a read only replica.", Unavailable),
        ("CLUSTERDOWN The cluster is down", Unavailable),
        ("NOPERM this user has no permissions to run the 'time' command", Unauthorized),
        ("ERR The user executing the script can't run this command or subcommand script: x, on @y:1.", Unauthorized),
        ("ERR unknown command 'FCALL'", UsageError),
        ("ERR something of which nobody knows", OutcomeUnknown),
    ],
)
def test_what_a_server_says(said: str, kind: type[LoomError]) -> None:
    error = meaning_of(hiredis.ReplyError(said), "Redis at here:1")
    assert type(error) is kind
    assert "Redis at here:1" in str(error)


def test_what_nobody_knows_is_not_tried_again() -> None:
    assert not meaning_of(hiredis.ReplyError("ERR what"), "Redis").retryable


def test_a_name_that_a_refusal_quotes_is_not_told() -> None:
    assert "alice" not in str(meaning_of(hiredis.ReplyError("NOPERM User 'alice' has no permissions"), "Redis"))


def test_our_own_functions_refuse_by_a_word() -> None:
    refused = refusal_of(hiredis.ReplyError("LOOM CONFLICT 12"))
    assert refused is not None
    assert (refused.word, refused.more) == ("CONFLICT", ("12",))
    assert refusal_of(hiredis.ReplyError("ERR LOOM CONFLICT 12")) is None

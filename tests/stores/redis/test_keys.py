"""What things are called: all keys of a run in one slot, and channels that name their logs."""

from __future__ import annotations

from loom.model.run import inbox_of
from loom.stores.redis.client.slots import slot_of
from loom.stores.redis.keys import Keys


def test_a_run_s_keys_lie_in_one_slot_and_the_queue_s_in_one() -> None:
    keys = Keys("shop")
    assert len({slot_of(key) for key in keys.of_run("run-1")}) == 1
    assert len({slot_of(key) for key in (*keys.queues, keys.runs, keys.open, keys.sweeper)}) == 1
    assert len({slot_of(keys.channel(topic)) for topic in ("run-1", inbox_of("run-1"))}) == 1


def test_a_channel_tells_its_log() -> None:
    keys = Keys("shop")
    for topic in ("run-1", inbox_of("run-1"), keys.queue):
        assert keys.topic(keys.channel(topic)) == topic


def test_all_begin_with_the_prefix_by_which_rights_are_given() -> None:
    keys = Keys("shop")
    assert all(key.startswith("shop:") for key in keys.of_run("run-1"))
    assert all(key.startswith("{shop}:") for key in (*keys.queues, keys.runs, keys.open, keys.sweeper))


def test_a_log_is_its_head_and_its_stream() -> None:
    keys = Keys("shop")
    head, outbox = keys.of_log("run-1")[:2]
    inbox = keys.of_log("run-1/in")[1]
    assert keys.of_log("run-1")[:2] == (head, outbox)
    assert keys.of_log(inbox_of("run-1"))[1] == inbox

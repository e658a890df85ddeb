"""The words of the benchmarks' page: how it is measured, and what is to be said about single figures."""

from __future__ import annotations

__all__ = ["HOW", "NOTES"]

HOW = """\
# Benchmarks

Written by `python benchmarks/run.py`; the code beside it says exactly what runs. The server has one core, the load
client (C, epoll) the other. Every peer is measured in the same run, in rounds one after the other; figures are medians
of the rounds, with least and most; ratios are medians of the rounds' own ratios. CPU time is the server process's own
clock, all threads. Absolute figures are this machine's: trust the ratios, and repeat them on yours.

What is compared is not the same work. A Loom event was encoded to JSON, appended to a log that knows its writer, and
can be read again from its cursor by anybody; its frame on the wire is twice as long (`id`, `event`, time). A peer's
event is a string that was formatted, sent and forgotten: its JSON is not even encoded, to the peer's advantage.

On Redis (T8 to T10, takeover, footprint) worker, Redis and gateway are processes of their own, for every peer the same:
the gateway has one core, Redis, worker and load client share the other; for T9 the worker has a core to itself. Redis
writes nothing to disk. By hand is one XADD a chunk and one blocked XREAD a viewer, with redis-py: no fence, no owner,
no end when a worker dies. resumable-stream publishes to readers and stores nothing: what its producer said is lost with
it.
"""

NOTES: dict[str, str] = {
    "T2": (
        "1.4 of raw ASGI is missed. Measured apart, in process, 100 runs, µs a chunk: the producer's turn of "
        "the loop 0.9; with JSON, batch and the appended log 3.4; with the hub 4.4; with the frame rendered "
        "5.4. The rest, 7, is the connection's, as raw ASGI has it. What a log costs that knows its writer "
        "and is read again from any cursor is these 4.5 µs, spread over some twenty calls none of which "
        "stands out; a longer frame costs nothing measurable."
    ),
    "T3": (
        "At an event a second each viewer's run, batch and write stand alone: what an event costs is mostly "
        "waking up, a producer's timer and a cold cache, for the peers too."
    ),
    "T6": (
        "The goals were set on a faster machine, where an item through an `asyncio.Queue` cost 0.53 µs. Here "
        "it costs 0.75 (the first row's peer), by which the first goal would be 1.7 and the others 8.5. In "
        "step, the two turns of the loop alone are 2.5 µs (two futures, by hand); `ahead=` adds what the "
        "store is told and asked: how far each reader has come."
    ),
    "T7": (
        "Throughput of batches: 64 producers that are always ready. Single chunks that wait for the disk are "
        "the peer's column."
    ),
    "T9": (
        "What is counted: of Loom chunks that Redis has acknowledged, checked against the run's writer and tail, and "
        "published to whoever follows (nobody does); by hand entries that XADD has acknowledged; of resumable-stream "
        "what its readers in another process have, for without a reader it publishes nothing. 40 times is what "
        "batches of one run give against a round trip a chunk. With 64 runs the peers have 64 round trips under way, "
        "and Node's client writes those of a turn at once, too; with a chunk each turn a batch of ours is one chunk."
    ),
    "T10": (
        "Of each run one viewer. By hand every one of them holds a connection to Redis, blocked in XREAD; it is given "
        "a fifth of the runs, and so of the chunks, for with all of them its gateway is busy connecting for minutes."
    ),
    "footprint": "Of a viewer by hand: its connection is most of it, on both sides.",
    "chats": (
        "A chat holds a run: its claim, lease, log, writer and inbox, not only a connection. By hand nothing "
        "is kept, and nothing can be resumed. The endpoint by hand is at its limit with 10,000 tokens a "
        "second on one core, hence its latency; Loom uses a third of the core."
    ),
}
"""By measure: why a goal was missed, and what else one must know to read the figure."""

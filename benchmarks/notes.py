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
"""

NOTES: dict[str, str] = {}
"""By measure: why a goal was missed, and what else one must know to read the figure."""

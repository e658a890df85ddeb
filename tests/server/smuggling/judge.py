"""Judges what came back on one connection against a strict reading of what was sent on it. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from .reader import End, Head, Reading

__all__ = ["Answer", "find_fault", "read_answers", "runs_asked_for"]

_STATUS = re.compile(rb"HTTP/1\.1 ([0-9]{3}) [^\r\n]*\r\n((?:[^\r\n]+\r\n)*)\r\n")
_RUN = re.compile(rb"no run '([^']+)'|\"id\":\"([^\"]+)\"")


class Answer(NamedTuple):
    """`run`: the run that it speaks of, if any."""

    status: int
    run: bytes | None
    closes: bool


def read_answers(data: bytes, methods: Sequence[bytes]) -> list[Answer]:
    """The whole answers in `data`; `methods`: of the requests, as far as they are known. Raises `ValueError`."""
    answers: list[Answer] = []
    at = 0
    while at < len(data):
        head = _STATUS.match(data, at)
        if head is None:
            if b"\r\n\r\n" in data[at:]:
                raise ValueError(f"no answer: {data[at : at + 80]!r}")
            return answers
        at = head.end()
        if head[1] == b"100":
            continue
        length = re.search(rb"\r\ncontent-length: ([0-9]+)\r\n", b"\r\n" + head[2])
        size = 0 if length is None or methods[len(answers) : len(answers) + 1] == [b"HEAD"] else int(length[1])
        if at + size > len(data):
            return answers
        run = _RUN.search(data, at, at + size)
        answers.append(Answer(int(head[1]), run and (run[1] or run[2]), b"connection: close\r\n" in head[2]))
        at += size
    return answers


def run_of(request: Head) -> bytes:
    """The run that a generated request speaks of; of POST /runs, whose body names it, nothing."""
    found = re.search(rb"/runs/([^/?]+)", request.target)
    return found[1] if found else b""


def runs_asked_for(reading: Reading) -> set[str]:
    """The runs that whole requests may start."""
    bodies = [request.body for request in reading.requests if request.target == b"/runs"]
    return {run.decode() for body in bodies for run in re.findall(rb'"id":"([^"]+)"', body)}


def find_fault(reading: Reading, answers: list[Answer], *, sound: bool) -> str | None:
    """Each answer has its request, in order; one more may speak of the request at which reading ended."""
    expected = [*reading.requests, *([reading.begun] if reading.begun else [])]
    for index, answer in enumerate(answers):
        last = index == len(answers) - 1
        if index < len(expected):
            if answer.run is not None and run_of(expected[index]) not in (answer.run, b""):
                return f"answer {index} is another request's"
        elif not (last and answer.status >= 400 and answer.run is None and reading.end in (End.CUT, End.DOUBT)):
            return f"answer {index} has no request"
    if len(answers) < len(reading.requests) and (sound or not answers):  # it may be stricter, which ends the connection
        return "a request has no answer"
    return None

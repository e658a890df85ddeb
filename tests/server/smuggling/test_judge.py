"""The strict reader and the judge: each finds what it is there for."""

from __future__ import annotations

from random import Random

import pytest

from .grammar import make_plan
from .judge import Answer, find_fault, read_answers, runs_asked_for
from .reader import End, read_requests

GET = b"GET /runs/a HTTP/1.1\r\nHost: h\r\n\r\n"
INNER = b"GET /runs/inner HTTP/1.1\r\n\r\n"


def post(rest: bytes) -> bytes:
    return b"POST /runs/b/cancel HTTP/1.1\r\nHost: h\r\n" + rest


@pytest.mark.parametrize(
    ("data", "targets", "end"),
    [
        (GET + GET, [b"/runs/a", b"/runs/a"], End.ALL),
        (b"\r\n" + post(b"Content-Length: 28\r\n\r\n" + INNER) + GET, [b"/runs/b/cancel", b"/runs/a"], End.ALL),
        (post(b"Content-Length:028 \r\n\r\n" + INNER), [b"/runs/b/cancel"], End.ALL),
        (
            post(b"Transfer-Encoding: chunked\r\n\r\n1c;a\r\n" + INNER + b"\r\n0\r\nX: y\r\n\r\n"),
            [b"/runs/b/cancel"],
            End.ALL,
        ),
        (
            post(b"Upgrade: x\r\nConnection: Upgrade\r\nContent-Length: 28\r\n\r\n" + INNER),
            [b"/runs/b/cancel"],
            End.ALL,
        ),
        (post(b"Connection: a, Close\r\n\r\n") + GET, [b"/runs/b/cancel"], End.CLOSED),
        (GET.replace(b"1.1", b"1.0") + GET, [b"/runs/a"], End.CLOSED),
        (post(b"Content-Length: 29\r\n\r\n" + INNER), [], End.CUT),
        (post(b"Transfer-Encoding: chunked\r\n\r\n5\r\nab"), [], End.CUT),
        (GET + GET[:-1], [b"/runs/a"], End.CUT),
        (GET + post(b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), [b"/runs/a"], End.DOUBT),
        (post(b"Content-Length: 0\r\nContent-Length: 0\r\n\r\n"), [], End.DOUBT),
        (post(b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"), [], End.DOUBT),
        (post(b"Transfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n"), [], End.DOUBT),
        (post(b"Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n"), [], End.DOUBT),
        (post(b"X: a\n\r\n"), [], End.DOUBT),
        (post(b"X: a\r\n b\r\n\r\n"), [], End.DOUBT),
        (b"CONNECT h:1 HTTP/1.1\r\n\r\n", [], End.DOUBT),
    ],
)
def test_reading(data: bytes, targets: list[bytes], end: End) -> None:
    reading = read_requests(data)
    assert ([request.target for request in reading.requests], reading.end) == (targets, end)


def answer(run: str, status: int = 404, head: bytes = b"") -> bytes:
    body = b'{"error":{"message":"there is no run \'%b\'"}}' % run.encode()
    return b"HTTP/1.1 %d No\r\n%bcontent-length: %d\r\n\r\n%b" % (status, head, len(body), body)


def test_answers_are_read() -> None:
    data = b"HTTP/1.1 100 Continue\r\n\r\n" + answer("a", head=b"connection: close\r\n") + answer("b")[:-1]
    assert read_answers(data, [b"POST"]) == [Answer(404, b"a", closes=True)]
    assert len(read_answers(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n" + answer("a"), [b"HEAD"])) == 2
    with pytest.raises(ValueError, match="no answer"):
        read_answers(answer("a") + b"{}" + answer("b"), [])


@pytest.mark.parametrize(
    ("data", "answered", "fault"),
    [
        (GET + post(b"\r\n"), ["a", "b"], None),
        (GET + post(b"\r\n"), ["a", "a"], "another request's"),
        (GET + post(b"\r\n"), ["a", "inner", "b"], "another request's"),
        (post(b"Content-Length: 28\r\n\r\n" + INNER), ["b", "inner"], "no request"),
        (post(b"Content-Length: 0\r\nContent-Length: 28\r\n\r\n" + INNER), ["inner"], "another request's"),
        (post(b"X: a\0\r\n\r\n") + INNER, ["inner"], "no request"),
        (post(b"Connection: close\r\n\r\n") + INNER, ["b", "inner"], "no request"),
        (GET, [], "no answer"),
    ],
)
def test_faults_are_found(data: bytes, answered: list[str], fault: str | None) -> None:
    answers = [Answer(404, run.encode(), closes=False) for run in answered]
    found = find_fault(read_requests(data), answers, sound=True)
    assert found is None if fault is None else fault in str(found)


def test_a_refusal_is_the_last_word() -> None:
    reading = read_requests(GET + b"\0")
    refusal = Answer(400, None, closes=True)
    assert find_fault(reading, [Answer(404, b"a", closes=False), refusal], sound=False) is None
    assert find_fault(reading, [Answer(404, b"a", closes=False), refusal, refusal], sound=False) is not None


def test_only_requests_ask_for_runs() -> None:
    start = b'POST /runs HTTP/1.1\r\nContent-Length: 11\r\n\r\n{"id":"c1"}'
    assert runs_asked_for(read_requests(start)) == {"c1"}
    assert runs_asked_for(read_requests(start[:-1])) == set()
    assert runs_asked_for(read_requests(post(b"Content-Length: %d\r\n\r\n%b" % (len(start), start)))) == set()


def test_plans_repeat_and_sound_ones_are() -> None:
    plans = [make_plan(Random(name), str(name)) for name in range(200)]
    assert plans == [make_plan(Random(name), str(name)) for name in range(200)]
    for plan in plans:
        reading = read_requests(b"".join(plan.pieces))
        assert not plan.sound or (reading.end, len(reading.requests)) == (End.CLOSED, plan.requests)

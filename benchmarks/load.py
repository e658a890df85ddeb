"""The load client where no C compiler is: the same commands and answers as `load.c`, several times slower.

Its own cost then shows in latencies (never in the server's CPU time); the report says which client it was.
"""

from __future__ import annotations

import json
import re
import resource
import selectors
import socket
import sys
import time

_STAMP = re.compile(rb'"t(?:":|=)([0-9.]+)')


class Stream:
    """One connection: undoes the chunked coding (RFC 9112, section 7.1) and counts events."""

    def __init__(self, port: int, request: bytes, counts: Counts) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.sendall(request)
        self.socket.setblocking(False)
        self._counts = counts
        self._raw = b""
        self._line = b""
        self.begun = self._chunked = False

    def receive(self) -> bool:
        """Whether the stream has ended."""
        try:
            data = self.socket.recv(1 << 18)
        except BlockingIOError:
            return False
        self._counts.bytes += len(data)
        self._raw += data
        if data and not (self.begun or self._begin()):
            return False
        if data and not self._take():
            return False
        self.socket.close()
        return True

    def _begin(self) -> bool:
        head, found, rest = self._raw.partition(b"\r\n\r\n")
        if not found:
            return False
        if not head.startswith(b"HTTP/1.1 20"):
            sys.exit(f"load: not the status that was expected: {head!r}")
        self._chunked = b"transfer-encoding: chunked" in head.lower()
        self._raw = rest
        self.begun = True
        return True

    def _take(self) -> bool:
        if not self._chunked:
            body, self._raw = self._raw, b""
            self._counts.take(self, body)
            return False
        while (end := self._raw.find(b"\r\n")) >= 0:
            size = int(self._raw[:end], 16)
            if not size:
                return True
            if len(self._raw) < end + size + 4:
                return False
            self._counts.take(self, self._raw[end + 2 : end + 2 + size])
            self._raw = self._raw[end + size + 4 :]
        return False

    def lines(self, body: bytes) -> list[bytes]:
        """The lines that `body` completes."""
        *lines, self._line = (self._line + body).split(b"\n")
        return lines


class Counts:
    """What arrived."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.events = self.bytes = 0
        self.latency: list[float] = []

    def take(self, stream: Stream, body: bytes) -> None:
        now = time.time()
        for line in stream.lines(body):
            if line.startswith(b"data:"):
                self.events += 1
                stamp = _STAMP.search(line)
                if stamp:
                    self.latency.append(now - float(stamp[1]))

    def report(self, seconds: float) -> None:
        ordered = sorted(self.latency) or [0.0]
        used = resource.getrusage(resource.RUSAGE_SELF)
        answer = {"events": self.events, "stamped": len(self.latency), "bytes": self.bytes, "seconds": seconds}
        for name, q in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0)):
            answer[name] = ordered[int(q * (len(ordered) - 1))]
        print(json.dumps({**answer, "client_cpu": used.ru_utime + used.ru_stime}), flush=True)


def _pump(selector: selectors.BaseSelector, *, until: float | None = None) -> None:
    while selector.get_map():
        left = None if until is None else until - time.monotonic()
        if left is not None and left <= 0:
            return
        for key, _ in selector.select(left):
            if key.data.receive():
                selector.unregister(key.fileobj)


def _first(port: int, requests: list[bytes], count: int) -> None:
    counts, took = Counts(), []
    begun = time.monotonic()
    for i in range(count):
        counts.reset()
        at = time.monotonic()
        stream = Stream(port, requests[i % len(requests)], counts)
        stream.socket.setblocking(True)
        while not counts.latency:
            if stream.receive() and not counts.latency:
                sys.exit("load: a stream ended before its first event")
        took.append(time.monotonic() - at)
        stream.socket.close()
    counts.latency = took
    counts.report(time.monotonic() - begun)


def _open(selector: selectors.BaseSelector, stream: Stream, *, wait: bool) -> None:
    while wait and not stream.begun:
        with selectors.DefaultSelector() as alone:
            alone.register(stream.socket, selectors.EVENT_READ)
            alone.select()
        stream.receive()
    selector.register(stream.socket, selectors.EVENT_READ, stream)


def main() -> None:
    port, mode, count, path = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
    with open(path, "rb") as file:
        requests = file.read().split(b"\0")[:-1]
    if mode == "first":
        _first(port, requests, count)
        return
    counts, selector = Counts(), selectors.DefaultSelector()
    begun = time.monotonic()
    for i in range(count):
        _open(selector, Stream(port, requests[i % len(requests)], counts), wait=mode == "hold")
    if mode == "drain":
        _pump(selector)
        counts.report(time.monotonic() - begun)
        return
    print("ready", flush=True)
    for line in sys.stdin:
        _pump(selector, until=time.monotonic() + 0.5)
        print("go", flush=True)
        counts.reset()
        begun = time.monotonic()
        _pump(selector, until=begun + float(line))
        counts.report(time.monotonic() - begun)


if __name__ == "__main__":
    main()

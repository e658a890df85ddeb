"""Processes on cores of their own, their CPU time and memory, and a load on them."""

from __future__ import annotations

import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PEERS = HERE / "peers"
SERVER_CORE, CLIENT_CORE = 0, 1


# --- servers ---------------------------------------------------------------------------------------------------------


class Server:
    """A process that said its port on its first line of output, pinned to the server's core."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process = process
        self.port = port

    def cpu(self) -> float:
        """Seconds of CPU time, of all its threads, to the nanosecond: the process's own clock (clock_getcpuclockid)."""
        return time.clock_gettime((~self.process.pid << 3) | 2)

    def memory(self, field: str = "VmRSS") -> int:
        """Bytes that are resident now; ``VmHWM``: at most so far."""
        if self.process.poll() is not None:
            raise SystemExit(f"a server ended by itself: {self.process.args}, status {self.process.returncode}")
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith(field))

    def connected_to(self, port: int) -> int:
        """How many of its TCP connections lead to that port of this machine."""
        own = set()
        for entry in Path(f"/proc/{self.process.pid}/fd").iterdir():
            with suppress(OSError):
                own.add(os.readlink(entry).removeprefix("socket:[").removesuffix("]"))
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        return sum(row[9] in own and row[3] == "01" and int(row[2].rpartition(":")[2], 16) == port for row in rows)


@contextmanager
def server(*command: str, core: int | None = SERVER_CORE) -> Iterator[Server]:
    """Run `command`; stopped, and if need be killed, at the end."""
    with tempfile.TemporaryFile("w+") as complaints:
        process = spawn(core, *command, cwd=PEERS, stderr=complaints)
        assert process.stdout is not None
        with ending(process):
            line = process.stdout.readline()
            if not line:
                complaints.seek(0)
                raise SystemExit(f"{complaints.read()[-2000:]}\n{' '.join(command)}: did not start")
            yield Server(process, int(line))


@contextmanager
def ending(process: subprocess.Popen[str]) -> Iterator[None]:
    """Stop it at the end, and if need be kill it."""
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def spawn(core: int | None, *command: str, **options: Any) -> subprocess.Popen[str]:
    """A process on its core, where there are several (None: on any), with room for thousands of connections."""
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options)
    if core is not None and (os.cpu_count() or 1) > core:
        os.sched_setaffinity(process.pid, {core})
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (most, most))
    return process


# --- load ------------------------------------------------------------------------------------------------------------


class Load:
    """The load client, on its own core: `load.c`, compiled here and now, else `load.py`."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="loom-bench-")
        compiler = shutil.which("cc") or shutil.which("gcc")
        self.kind = "C" if compiler else "Python"
        self._command = [sys.executable, str(HERE / "load.py")]
        if compiler:
            binary = f"{self._folder.name}/load"
            subprocess.run([compiler, "-O2", "-o", binary, str(HERE / "load.c")], check=True)
            self._command = [binary]

    def close(self) -> None:
        self._folder.cleanup()

    def drain(self, port: int, connections: int, requests: Iterable[bytes]) -> dict[str, Any]:
        """Read streams to their ends."""
        return self._once(port, "drain", connections, requests)

    def first(self, port: int, count: int, requests: Iterable[bytes]) -> dict[str, Any]:
        """Seconds from connecting to the first stamped event, one request after the other."""
        return self._once(port, "first", count, requests)

    def _once(self, port: int, mode: str, count: int, requests: Iterable[bytes]) -> dict[str, Any]:
        with self._process(port, mode, count, requests) as process:
            out, _ = process.communicate(timeout=600)
        if process.returncode:
            raise SystemExit(f"the load client failed: {mode} {count}")
        return json.loads(out)  # type: ignore[no-any-return]

    @contextmanager
    def hold(self, port: int, connections: int, requests: Iterable[bytes]) -> Iterator[Held]:
        """Streams that are open within the block."""
        with self._process(port, "hold", connections, requests) as process:
            yield Held(process)

    @contextmanager
    def _process(self, port: int, mode: str, count: int, requests: Iterable[bytes]) -> Iterator[subprocess.Popen[str]]:
        with tempfile.NamedTemporaryFile(dir=self._folder.name) as file:
            file.write(b"".join(request + b"\0" for request in requests))
            file.flush()
            process = spawn(CLIENT_CORE, *self._command, str(port), mode, str(count), file.name)
            try:
                yield process
            finally:
                process.kill()
                process.wait()
                for pipe in (process.stdin, process.stdout):
                    if pipe is not None:
                        with suppress(BrokenPipeError):
                            pipe.close()


class Held:
    """Streams that were opened and answered."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._expect("ready")

    def _expect(self, word: str) -> None:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line.strip() != word:
            raise SystemExit(f"the load client failed: {line!r} instead of {word!r}")

    def measure(self, seconds: float, server: Server, *others: Server) -> dict[str, Any]:
        """What arrives in that time, with the server's CPU seconds as `cpu`, and those of `others`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(seconds, file=self._process.stdin, flush=True)
        self._expect("go")
        before = [process.cpu() for process in (server, *others)]
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        used = [process.cpu() - start for process, start in zip((server, *others), before, strict=True)]
        return {**answer, "cpu": used[0], "others": used[1:]}


def get(path: str, *headers: str) -> bytes:
    """A whole GET request."""
    lines = [f"GET {path} HTTP/1.1", "Host: 127.0.0.1", "Connection: close", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def post(path: str, body: str = "") -> bytes:
    """A whole POST request of JSON."""
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()


# --- this machine ----------------------------------------------------------------------------------------------------


def script(name: str, *arguments: str) -> dict[str, Any]:
    """Run one of our scripts alone on the server's core; its last line of output is its answer."""
    return alone(sys.executable, str(HERE / name), *arguments)


def alone(*command: str, core: int = SERVER_CORE) -> dict[str, Any]:
    """Run a command on its core; its last line of output is its answer."""
    process = spawn(core, *command)
    out, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed")
    return json.loads(out.splitlines()[-1])  # type: ignore[no-any-return]


def node() -> str | None:
    """Node's version, if it is here."""
    path = shutil.which("node")
    if path is None:
        return None
    return subprocess.run([path, "--version"], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def facts(load: Load) -> dict[str, Any]:
    """What the figures depend on."""
    versions = {}
    for name in ("uvicorn", "uvloop", "starlette", "sse-starlette", "fastapi", "msgspec", "apsw", "redis", "hiredis"):
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
        "node": node(),
        "client": load.kind,
        "versions": versions,
    }


def _cpu_model() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()

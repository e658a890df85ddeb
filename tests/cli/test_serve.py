"""`loom serve` and `loom worker` as processes: what they say, how they stop, how they work apart."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from .kit import APPS, Loom, Running


def port_of(server: Running) -> int:
    """The port that it says it listens on."""
    match = re.search(r"url +http://127\.0\.0\.1:(\d+)", server.until("curl -N"))
    assert match is not None
    return int(match[1])


def request(port: int, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, bytes]:
    """One request over a bare socket: (status, body as it came)."""
    data = b"" if body is None else json.dumps(body).encode()
    lines = [
        f"{method} {path} HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        "Connection: close",
        f"Content-Length: {len(data)}",
    ]
    lines += ["Content-Type: application/json"] if data else []
    lines += [f"{name}: {value}" for name, value in headers.items()]
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + data)
        answer = b""
        while block := connection.recv(65536):
            answer += block
    head, _, rest = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), rest


def test_serve_runs_and_streams_and_stops_when_told(loom_command: Loom, tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/runs.db"
    with loom_command.running("serve", "app:app", "--store", store, "--port", "0") as server:
        port = port_of(server)
        assert f"{store} (durability: disk)" in server.out.decode()
        status, _ = request(port, "POST", "/runs", {"actor": "count", "input": {"n": 3}, "id": "r"})
        assert status == 201
        status, events = request(port, "GET", "/runs/r/events")
        assert status == 200
        assert re.findall(rb'"data":\{"i":(\d)\}', events) == [b"0", b"1", b"2"]
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert re.search(r"^Stopping: .*\nStopped.*\.\n\Z", server.out.decode(), re.MULTILINE)
        assert server.err == b""


def test_an_idle_server_stops_without_much_ado(loom_command: Loom) -> None:
    with loom_command.running("serve", "app:app", "--port", "0") as server:
        port_of(server)
        server.signal(signal.SIGINT)
        assert server.wait() == 0
        assert server.out.decode().endswith("Stopping: nothing is running.\nStopped.\n")


def test_the_line_to_paste_works(loom_command: Loom) -> None:
    with loom_command.running("serve", "app:app", "--port", "0") as server:
        port_of(server)
        line = re.search(r"^  (curl -N .*)$", server.out.decode(), re.MULTILINE)
        assert line is not None
        done = subprocess.run(line[1], shell=True, capture_output=True, timeout=10, check=True)
        assert b'"i":2' in done.stdout
        assert b"event: complete" in done.stdout


def test_draining_hands_over_what_continues_and_lets_the_others_finish(loom_command: Loom, tmp_path: Path) -> None:
    store = ("--store", f"sqlite:///{tmp_path}/runs.db")
    with loom_command.running("serve", "app:app", *store, "--port", "0") as server:
        port = port_of(server)
        request(port, "POST", "/runs", {"actor": "count", "input": 10**6, "id": "continues"})
        request(port, "POST", "/runs", {"actor": "pieces", "input": ["a"], "id": "finishes"})
        for run in ("continues", "finishes"):
            request(port, "GET", f"/runs/{run}/chunks?after=&limit=2&wait=10")
        server.signal(signal.SIGTERM)
        server.until("of 2 running, 1 handed over, 1 may finish within 20 s")
        assert loom_command("runs", "send", "finishes", "go", *store).returncode == 0
        assert server.wait() == 0
        assert "Stopped: 1 finished (finishes), 1 handed over (continues)." in server.out.decode()
    assert "state    running" in loom_command("runs", "show", "continues", *store).stdout
    assert "state    completed" in loom_command("runs", "show", "finishes", *store).stdout


def test_what_does_not_finish_in_time_is_told_as_lost(loom_command: Loom, tmp_path: Path) -> None:
    store = ("--store", f"sqlite:///{tmp_path}/runs.db")
    with loom_command.running("serve", "app:app", *store, "--port", "0", "--drain", "50ms") as server:
        port = port_of(server)
        request(port, "POST", "/runs", {"actor": "forever", "id": "r"})
        request(port, "GET", "/runs/r/chunks?limit=2&wait=10")
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert "1 may finish within 0.05 s" in server.out.decode()
        assert "Stopped: 1 lost (r)." in server.out.decode()
    assert "(run_lost)" in loom_command("runs", "show", "r", *store).stdout


def test_a_second_signal_leaves_at_once(loom_command: Loom) -> None:
    with loom_command.running("serve", "app:app", "--port", "0") as server:
        port = port_of(server)
        request(port, "POST", "/runs", {"actor": "forever", "id": "r"})
        request(port, "GET", "/runs/r/chunks?limit=2&wait=10")
        server.signal(signal.SIGINT)
        server.until("A second signal leaves at once.")
        server.signal(signal.SIGINT)
        assert server.wait() == 130


def test_server_and_worker_apart_share_one_file(loom_command: Loom, tmp_path: Path) -> None:
    store = ("--store", f"sqlite:///{tmp_path}/runs.db")
    with (
        loom_command.running("serve", "app:app", *store, "--port", "0", "--no-worker") as server,
        loom_command.running("worker", "app:app", *store, "--lease", "1s", "--concurrency", "5") as worker,
    ):
        url = f"http://127.0.0.1:{port_of(server)}"
        assert "none here (loom worker drives the runs)" in server.out.decode()
        worker.until("5 runs at a time, queue default, lease 1 s")
        done = loom_command("actor", "run", "count", "5", "--url", url, "--stream")
        assert done.stdout == "".join(f'{{"i":{i}}}\n' for i in range(5))
        worker.signal(signal.SIGTERM)
        assert worker.wait() == 0
        server.signal(signal.SIGTERM)
        assert server.wait() == 0


def test_what_is_no_http_is_answered_without_ado(loom_command: Loom) -> None:
    with loom_command.running("serve", "app:app", "--port", "0") as server:
        port = port_of(server)
        with socket.create_connection(("127.0.0.1", port), 10) as connection:
            connection.sendall(b"\x16\x03\x01 no HTTP at all\r\n\r\n")
            assert connection.recv(65536).startswith(b"HTTP/1.1 400 ")
        server.signal(signal.SIGINT)
        assert server.wait() == 0
        assert server.err == b""


def test_an_address_that_is_not_ours_is_named_once(loom_command: Loom) -> None:
    loom_command.env["LOOM_API_KEYS"] = "key"
    done = loom_command("serve", "app:app", "--host", "192.0.2.1", "--port", "8700")
    assert done.stderr.startswith("error: cannot listen on 192.0.2.1:8700: ")
    assert done.stderr.count("192.0.2.1") == 1


def test_everything_works_through_a_server(loom_command: Loom) -> None:
    with loom_command.running("serve", "app:app", "--port", "0") as server:
        loom_command.env["LOOM_URL"] = f"http://127.0.0.1:{port_of(server)}"
        assert "a, [b]" in loom_command("actor", "list").stdout
        assert loom_command("actor", "run", "echo", "one two", "--id", "r").stdout == "one two \n"
        assert loom_command("actor", "run", "fails").returncode == 1
        assert loom_command("actor", "run", "count", "many").stderr.startswith("error: n: Expected `int`")
        assert json.loads(loom_command("runs", "show", "r", "-o", "json").stdout)["state"] == "completed"
        assert len(loom_command("runs", "list", "-o", "jsonl").stdout.splitlines()) == 2
        tail = loom_command("runs", "tail", "r", "-o", "jsonl").stdout.splitlines()
        assert [json.loads(line)["type"] for line in tail] == ["start", "data", "data", "complete"]
        with loom_command.running("actor", "run", "forever", "--stream", "--id", "f") as running:
            running.until("said")
            running.signal(signal.SIGINT)
            assert running.wait() == 130
        assert "state    cancelled" in loom_command("runs", "show", "f").stdout


def test_keys_are_asked_for_and_never_shown(loom_command: Loom) -> None:
    loom_command.env["LOOM_API_KEYS"] = "first-secret, second-secret"
    with loom_command.running("serve", "app:app", "--port", "0") as server:
        port = port_of(server)
        assert "2 (LOOM_API_KEYS)" in server.out.decode()
        assert "secret" not in server.out.decode() + server.err.decode()
        assert request(port, "GET", "/runs")[0] == 401
        assert request(port, "GET", "/runs", Authorization="Bearer second-secret")[0] == 200
        loom_command.env["LOOM_URL"] = f"http://127.0.0.1:{port}"
        refused = loom_command("runs", "list")
        assert (refused.returncode, refused.stderr.splitlines()[0]) == (
            77,
            "error: a key is needed: Authorization: Bearer <key> (unauthorized)",
        )
        loom_command.env["LOOM_API_KEY"] = "first-secret"
        assert loom_command("runs", "list").returncode == 0


def test_beyond_this_machine_keys_are_needed(loom_command: Loom) -> None:
    done = loom_command("serve", "app:app", "--host", "0.0.0.0", "--port", "0")
    assert done.returncode == 64
    assert done.stderr.startswith("error: listening on 0.0.0.0, beyond this machine, needs keys")


def test_a_port_in_use_is_told(loom_command: Loom) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = loom_command("serve", "app:app", "--port", str(port))
    assert done.returncode == 64
    assert done.stderr.startswith(f"error: port {port} is in use on 127.0.0.1")


@pytest.mark.parametrize(
    "arguments",
    [("--lease", "soon"), ("--lease", "0"), ("--concurrency", "0"), ("--port", "x"), ("--nope",), ("--drain", "-1s")],
)
def test_wrong_options_are_one_line(loom_command: Loom, arguments: tuple[str, ...]) -> None:
    done = loom_command("serve", "app:app", "--port", "0", *arguments)
    assert done.returncode == 64
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") <= 2


def test_runs_of_another_queue_are_left_alone(loom_command: Loom, tmp_path: Path) -> None:
    store = ("--store", f"sqlite:///{tmp_path}/runs.db")
    with loom_command.running("serve", "app:app", *store, "--port", "0", "--queue", "a", "--queue", "b") as server:
        port = port_of(server)
        assert "queues a, b" in server.out.decode()
        for queue in ("default", "b"):
            request(port, "POST", "/runs", {"actor": "count", "input": 1, "id": queue, "queue": queue})
        assert b"event: complete" in request(port, "GET", "/runs/b/events")[1]
        assert json.loads(request(port, "GET", "/runs/default")[1])["state"] == "queued"


@pytest.mark.parametrize("command", [("serve", "queued:app", "--port", "0"), ("worker", "queued:app")])
def test_declared_queues_are_served_and_named(loom_command: Loom, command: tuple[str, ...]) -> None:
    with loom_command.running(*command) as running:
        running.until("queues default, jobs, lease")
    with loom_command.running(*command, "--queue", "default") as running:
        running.until("queue default, lease")


@pytest.mark.parametrize(
    "command", [("worker", "app:app"), ("serve", "app:app", "--no-worker"), ("demo", "--no-worker")]
)
def test_a_memory_that_nobody_else_can_reach_is_refused(loom_command: Loom, command: tuple[str, ...]) -> None:
    done = loom_command(*command, "--store", "memory://")
    assert done.returncode == 64
    assert done.stderr.startswith("error: --store memory://: memory is one process's alone")
    assert done.stdout == ""


def test_on_memory_a_start_in_an_unserved_queue_is_refused(loom_command: Loom) -> None:
    with loom_command.running("serve", "queued:app", "--store", "memory://", "--port", "0") as server:
        port = port_of(server)
        assert request(port, "POST", "/runs", {"actor": "report", "input": 3})[0] == 201
        status, body = request(port, "POST", "/runs", {"actor": "report", "input": 3, "queue": "other"})
        assert (status, json.loads(body)["error"]["details"]) == (422, {"field": "queue"})


def test_reload_starts_again_when_a_file_changes(loom_command: Loom, tmp_path: Path) -> None:
    pytest.importorskip("watchfiles")
    shutil.copy(APPS / "app.py", tmp_path)
    loom_command.cwd = tmp_path
    with loom_command.running("serve", "app:app", "--port", "0", "--reload") as server:
        port_of(server)
        server.out = b""
        (tmp_path / "app.py").write_text("import nowhere\n")
        server.until("error: app:app: app.py:1: No module named 'nowhere'")
        server.out = server.err = b""
        shutil.copy(APPS / "app.py", tmp_path)
        port = port_of(server)
        assert request(port, "GET", "/actors")[0] == 200
        server.signal(signal.SIGINT)
        assert server.wait() == 0
        with pytest.raises(ConnectionRefusedError):
            request(port, "GET", "/actors")


def test_what_a_run_raises_forges_no_line_of_the_log(loom_command: Loom, tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/runs.db"
    with loom_command.running("serve", "app:app", "--store", store, "--port", "0") as server:
        port = port_of(server)
        assert request(port, "POST", "/runs", {"actor": "fails", "id": "r"})[0] == 201
        assert request(port, "GET", "/runs/r/events")[0] == 200
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        first, *others = server.err.decode().splitlines()
        assert first.endswith("WARNING loom.worker: run r failed: ValueError: the producer\\nbroke")
        assert others[0] == "    Traceback (most recent call last):"
        assert others[-2:] == ["    ValueError: the producer", "    broke"]

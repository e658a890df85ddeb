"""`loom demo` as a process: where it listens, what it opens, how it ends, what it keeps."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import socket
import stat
from pathlib import Path

from loom.cli.demo import first_free

from .kit import Loom, Running
from .test_serve import request


def port_of(demo: Running) -> int:
    match = re.search(r"page +http://127\.0\.0\.1:(\d+)", demo.until("Ctrl-C ends it."))
    assert match is not None
    return int(match[1])


def test_it_serves_a_page_and_ends_cleanly(loom_command: Loom) -> None:
    with loom_command.running("demo", "--no-browser", "--port", "0") as demo:
        port = port_of(demo)
        said = demo.out.decode()
        assert f"sqlite:///{loom_command.state}/loom/demo.db" in said
        assert "a small built-in Markov-chain writer" in said
        assert f"kill -9 {demo.process.pid}" in said
        assert b"<title>Loom</title>" in request(port, "GET", "/")[1]
        demo.signal(signal.SIGINT)
        assert demo.wait() == 0
        assert demo.out.decode().endswith("Stopping: nothing is running.\nStopped.\n")
        assert demo.err == b""


def test_what_was_said_is_there_when_it_is_started_again(loom_command: Loom) -> None:
    body = {"actor": "chat", "input": {"messages": [{"role": "user", "content": "Hi"}]}, "id": "r"}
    with loom_command.running("demo", "--no-browser", "--port", "0") as demo:
        port = port_of(demo)
        assert request(port, "POST", "/runs", body)[0] == 201
        assert b'"seq"' not in request(port, "GET", "/runs/r/chunks?limit=2&wait=10")[1]
        demo.signal(signal.SIGINT)
        assert demo.wait() == 0
        assert "1 handed over (r)" in demo.out.decode()
    with loom_command.running("demo", "--no-browser", "--port", "0") as demo:
        port = port_of(demo)
        latest = json.loads(request(port, "GET", "/runs/r")[1])["latest"]
        assert b'"attempt":2' in request(port, "GET", f"/runs/r/chunks?after={latest}&wait=10")[1]
        assert request(port, "POST", "/runs/r/cancel")[0] == 202


def test_another_port_is_taken_when_the_usual_one_is(loom_command: Loom) -> None:
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # somebody else has it: all the better
            stack.enter_context(socket.create_server(("127.0.0.1", 8700)))
        demo = stack.enter_context(loom_command.running("demo", "--no-browser"))
        port = port_of(demo)
        assert port != 8700
        assert request(port, "GET", "/healthz")[0] == 200


def test_the_first_free_port_is_taken_so_that_a_page_finds_it_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert first_free([port]) is None
        listener = first_free([port, 0, port])
    assert listener is not None
    with listener:
        assert listener.getsockname()[1] not in (0, port)


def test_a_state_folder_that_cannot_be_made_is_told_with_a_way_out_that_works(
    loom_command: Loom, tmp_path: Path
) -> None:
    loom_command.state.write_text("a file")
    done = loom_command("demo", "--no-browser", "--port", "0")
    assert done.returncode == 64
    assert done.stderr.startswith("error: cannot make the state folder")
    assert done.stderr.endswith(": XDG_STATE_HOME=$PWD loom demo\n")
    loom_command.env["XDG_STATE_HOME"] = str(tmp_path)
    with loom_command.running("demo", "--no-browser", "--port", "0") as demo:
        assert request(port_of(demo), "GET", "/healthz")[0] == 200


def test_a_port_that_was_asked_for_and_is_taken_is_an_error(loom_command: Loom) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = loom_command("demo", "--no-browser", "--port", str(taken.getsockname()[1]))
    assert done.returncode == 64
    assert re.fullmatch(r"error: port \d+ is in use on 127\.0\.0\.1.*\n", done.stderr)
    assert loom_command("demo", "--port", "99999").stderr == "error: --port 99999: 0 to 65535 (usage)\n"


def test_the_browser_is_opened_unless_told_not_to(loom_command: Loom, tmp_path: Path) -> None:
    opened = tmp_path / "opened"
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {opened}.part && mv {opened}.part {opened}\necho noticed >&2\n')
    browser.chmod(stat.S_IRWXU)
    loom_command.env["BROWSER"] = str(browser)
    with loom_command.running("demo", "--port", "0") as demo:
        port = port_of(demo)
        demo.until("noticed")
        assert opened.read_text() == f"http://127.0.0.1:{port}\n"
        demo.signal(signal.SIGINT)
        assert demo.wait() == 0
    opened.unlink()
    with loom_command.running("demo", "--port", "0", "--no-browser") as demo:
        port_of(demo)
        demo.signal(signal.SIGINT)
        assert demo.wait() == 0
    assert not opened.exists()


def test_a_browser_that_stays_in_front_or_is_none_stops_nothing(loom_command: Loom, tmp_path: Path) -> None:
    stays = tmp_path / "stays"
    stays.write_text("#!/bin/sh\nexec sleep 5 >/dev/null 2>&1\n")
    stays.chmod(stat.S_IRWXU)
    for browser in (stays, tmp_path / "none"):
        loom_command.env["BROWSER"] = str(browser)
        with loom_command.running("demo", "--port", "0") as demo:
            port_of(demo)
            demo.signal(signal.SIGINT)
            assert demo.wait() == 0
            assert demo.err == b""

"""`loom runs`: lists, single runs, following, sending, cancelling."""

from __future__ import annotations

import json
import re
import signal
import socket

import pytest

from .kit import Loom
from .test_serve import port_of

APP = ("--app", "app:app")


@pytest.fixture
def ended(loom_command: Loom) -> str:
    """A run that has ended, with two chunks of text."""
    assert loom_command("actor", "run", "echo", "one two", *APP, "--id", "r").returncode == 0
    return "r"


def test_list_filters_and_limits(loom_command: Loom, ended: str) -> None:
    assert loom_command("actor", "run", "fails", *APP, "--id", "f").returncode == 1
    rows = loom_command("runs", "list").stdout.splitlines()
    assert rows[0].split() == ["RUN", "ACTOR", "STATE", "CHUNKS", "TOOK", "STARTED"]
    assert [row.split()[:4] for row in rows[1:]] == [["f", "fails", "failed", "3"], ["r", "echo", "completed", "4"]]
    assert [row.split()[0] for row in loom_command("runs", "list", "--limit", "1").stdout.splitlines()[1:]] == ["f"]
    failed = json.loads(loom_command("runs", "list", "--state", "completed", "-o", "json").stdout)
    assert [run["id"] for run in failed] == ["r"]
    assert not {"input", "result"} & failed[0].keys()
    assert loom_command("runs", "list", "--actor", "nope", "-o", "jsonl").stdout == ""


def test_show_tells_all(loom_command: Loom, ended: str) -> None:
    shown = loom_command("runs", "show", ended).stdout
    for line in ("run      r", "actor    echo", "state    completed", 'input    {"text":"one two"}', "attempt  1"):
        assert line in shown.splitlines()
    assert json.loads(loom_command("runs", "show", ended, "-o", "jsonl").stdout)["chunks"] == 4


def test_labels_are_given_shown_and_searched(loom_command: Loom, ended: str) -> None:
    labels = ("--label", "user=42", "--label", "at=12:30 = noon")
    assert loom_command("actor", "run", "echo", "hi", *APP, "--id", "mine", *labels).returncode == 0
    assert "labels   user=42, at=12:30 = noon" in loom_command("runs", "show", "mine").stdout.splitlines()
    assert "labels" not in loom_command("runs", "show", ended).stdout
    shown = json.loads(loom_command("runs", "show", "mine", "-o", "json").stdout)
    assert shown["labels"] == {"user": "42", "at": "12:30 = noon"}
    for filters, expected in (
        (["--label", "user=42"], ["mine"]),
        ([*labels, "--actor", "echo"], ["mine"]),
        (["--label", "user=7"], []),
        (["--parent", "mine"], []),
        (["--root", "mine"], []),
    ):
        listed = loom_command("runs", "list", *filters, "-o", "jsonl").stdout.splitlines()
        assert [json.loads(line)["id"] for line in listed] == expected, filters
    for wrong in ("user", "=42", "a:b=c", "user=two\nlines"):
        assert loom_command("actor", "run", "echo", "hi", *APP, "--label", wrong).returncode in (64, 65), wrong


def test_show_of_what_is_not_there(loom_command: Loom, ended: str) -> None:
    done = loom_command("runs", "show", "nope")
    assert done.returncode == 66
    assert re.fullmatch(r"error: .*'nope'.* \(not_found\)\nhint: .*\n", done.stderr)


def test_tail_of_an_ended_run_prints_it_from_any_cursor(loom_command: Loom, ended: str) -> None:
    whole = loom_command("runs", "tail", ended)
    assert (whole.returncode, whole.stdout) == (0, "one two \n")
    lines = [json.loads(line) for line in loom_command("runs", "tail", ended, "-o", "jsonl").stdout.splitlines()]
    rest = loom_command("runs", "tail", ended, "--after", lines[1]["cursor"])
    assert rest.stdout == "two \n"


@pytest.mark.parametrize(
    ("cursor", "code", "line"),
    [
        ("5", 64, "error: --after: not a cursor: '5' (expected <epoch>-<seq>) (usage)"),
        ("99-3", 66, "error: the history at this cursor is gone (cursor_expired)"),
    ],
)
def test_a_wrong_cursor_is_refused(loom_command: Loom, ended: str, cursor: str, code: int, line: str) -> None:
    done = loom_command("runs", "tail", ended, "--after", cursor)
    assert (done.returncode, done.stderr.splitlines()[0]) == (code, line)


def test_tail_ends_as_the_run_did(loom_command: Loom) -> None:
    loom_command("actor", "run", "fails", *APP, "--id", "f")
    done = loom_command("runs", "tail", "f")
    assert (done.returncode, done.stdout) == (1, "so far so good\n")
    assert done.stderr == "error: ValueError: the producer broke (run_failed)\n"


def test_tail_leaves_the_run_alone_and_says_how_to_read_on(loom_command: Loom, ended: str) -> None:
    with loom_command.running("worker", "app:app", "--store", loom_command.store) as worker:
        worker.until("worker for")
        run = loom_command.begin("pieces", ["one", "two"])
        with loom_command.running("runs", "tail", run, "--store", loom_command.store) as tail:
            tail.until("one")
            tail.signal(signal.SIGINT)
            assert tail.wait() == 130
            assert tail.out == b"one\n"
            told, line = tail.err.decode().splitlines()
        assert told == "The run goes on. To read on:"
        resume = re.fullmatch(rf"loom (runs tail {run} --after \d+-2 --store {re.escape(loom_command.store)})", line)
        assert resume is not None, line
        for _ in range(2):
            loom_command("runs", "send", run, "go")
        assert loom_command(*resume[1].split()).stdout == "two\n"


def test_show_and_tail_say_that_no_worker_serves_its_queue(loom_command: Loom, ended: str) -> None:
    run = loom_command.begin("pieces", ["one"])
    with loom_command.running("runs", "tail", run) as tail:
        note = "no worker serves queue default"
        assert f"state    queued: {note}" in loom_command("runs", "show", run).stdout.splitlines()
        tail.until(f"note: {note}")
        with loom_command.running("worker", "app:app") as worker:
            worker.until("worker for")
            tail.until("one")
            loom_command("runs", "send", run, "go")
            assert tail.wait() == 0


def test_cancel_waits_until_the_run_is_gone(loom_command: Loom) -> None:
    with loom_command.running("worker", "app:app") as worker:
        worker.until("worker for")
        run = loom_command.begin("forever", {})
        with loom_command.running("runs", "tail", run) as tail:
            tail.until("said")
            done = loom_command("runs", "cancel", run)
            assert (done.returncode, done.stdout) == (0, f"{run} cancelled\n")
            assert tail.wait() == 130  # as the table says of a cancelled run
        assert loom_command("runs", "cancel", run).returncode == 0


def test_cancel_of_a_run_that_nobody_drives_yet_is_confirmed_at_once(loom_command: Loom, ended: str) -> None:
    run = loom_command.begin("forever", {})
    assert loom_command("runs", "cancel", run).stdout == f"{run} cancelled\n"


def test_cancel_says_when_nobody_confirms(loom_command: Loom) -> None:
    with loom_command.running("worker", "app:app") as worker:
        worker.until("worker for")
        run = loom_command.begin("forever", {})
        with loom_command.running("runs", "tail", run) as tail:
            tail.until("said")
        worker.signal(signal.SIGKILL)
        worker.wait()
    assert loom_command("runs", "cancel", run, "--timeout", "0").returncode == 0
    done = loom_command("runs", "cancel", run, "--timeout", "50ms")
    assert done.returncode == 69
    assert done.stderr.startswith("error: the cancel is stored, but no worker has confirmed it within 0.05 s")


def test_send_reaches_the_run_and_is_refused_when_it_has_ended(loom_command: Loom, ended: str) -> None:
    done = loom_command("runs", "send", ended, "go")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "(ended)" in done.stderr


def test_a_server_out_of_reach_is_one_line(loom_command: Loom) -> None:
    done = loom_command("runs", "list", "--url", "http://127.0.0.1:1")
    assert (done.returncode, done.stdout) == (69, "")
    assert re.fullmatch(r"error: .* \(unavailable\)\nhint: loom doctor .*\n", done.stderr)


def test_tail_waits_while_the_server_is_away_and_says_so(loom_command: Loom) -> None:
    with loom_command.running("serve", "app:app", "--port", "0", "--lease", "500ms") as server:
        url = f"http://127.0.0.1:{port_of(server)}"
        run = loom_command.begin("pieces", ["one", "two"])
        with (
            loom_command.terminal("runs", "tail", run, "--url", url) as tail,
            loom_command.running("runs", "tail", run, "--url", url, "-o", "jsonl") as piped,
        ):
            tail.until("one")
            piped.until('"one"')
            server.signal(signal.SIGKILL)
            tail.until(f"reconnecting to {url} · ")
            piped.until(f"connection lost; trying again: {url}\n")
            with loom_command.running("serve", "app:app", "--port", url.rpartition(":")[2]) as again:
                again.until("curl")
                assert (piped.wait(), tail.wait()) == (1, 1)
        assert piped.err.decode().splitlines()[:2] == [f"connection lost; trying again: {url}", "connected again"]
        assert "✗ Lost" in tail.text


def test_tail_that_gives_up_says_how_to_go_on(loom_command: Loom) -> None:
    url = "http://127.0.0.1:1"
    with loom_command.running("runs", "tail", "r", "--after", "1-2", "--url", url) as tail:
        tail.until(f"connection lost; trying again: {url}\n")
        tail.signal(signal.SIGINT)
        assert tail.wait() == 130
        assert tail.err.decode().splitlines()[-1] == f"loom runs tail r --after 1-2 --url {url}"
    done = loom_command("runs", "tail", "r", "--store", "redis://127.0.0.1:1")
    assert done.returncode == 69


def test_tail_begun_while_the_server_is_away_waits(loom_command: Loom, ended: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with loom_command.running("runs", "tail", ended, "--url", url, "-o", "jsonl") as tail:
        tail.until(f"connection lost; trying again: {url}\n")
        with loom_command.running("serve", "app:app", "--port", str(port)) as server:
            server.until("curl")
            assert tail.wait() == 0
        assert json.loads(tail.out.decode().splitlines()[-1])["type"] == "complete"
        assert tail.err.decode().splitlines() == [f"connection lost; trying again: {url}", "connected again"]

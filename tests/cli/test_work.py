"""`loom queue`, `loom workers`, `loom runs retry`: by store and through a server."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from .kit import Loom
from .test_serve import port_of


@pytest.mark.parametrize("through", ["store", "server"])
def test_what_waits_and_who_works(loom_command: Loom, tmp_path: Path, through: str) -> None:
    store = ("--store", f"sqlite:///{tmp_path}/runs.db")
    with (
        loom_command.running("serve", "app:app", *store, "--port", "0", "--no-worker") as server,
        loom_command.running("worker", "app:app", *store, "--lease", "2s") as worker,
    ):
        url = ("--url", f"http://127.0.0.1:{port_of(server)}")
        where = url if through == "server" else store
        with loom_command.running("actor", "run", "forever", *url, "--id", "r", "--stream") as running:
            running.until("said")
            rows = loom_command("queue", "show", *where).stdout.splitlines()
            assert " ".join(rows[0].split()) == "RUN ACTOR QUEUE PLACE PRIORITY KEY CRASHES CREATED WORKER"
            assert rows[1].split()[:5] == ["r", "forever", "default", "leased", "normal"]
            (entry,) = json.loads(loom_command("queue", "show", "-o", "json", *where).stdout)
            (info,) = json.loads(loom_command("workers", "list", "-o", "json", *where).stdout)
            assert (entry["run"], entry["worker"]) == ("r", info["name"])
            shown = loom_command("workers", "list", *where).stdout.splitlines()[1].split()
            assert shown[0] == info["name"]
            assert "working" in shown
            running.signal(signal.SIGINT)
            assert running.wait() == 130
        assert loom_command("queue", "show", "-o", "jsonl", *where).stdout == ""
        again = loom_command("runs", "retry", "r", "--id", "again", *where)
        assert (again.returncode, again.stdout) == (0, "again\n")
        assert "retry of r" in loom_command("runs", "show", "again", *where).stdout.splitlines()
        refused = loom_command("runs", "retry", "again", *where)
        assert (refused.returncode, "has not ended" in refused.stderr) == (65, True)
        assert loom_command("runs", "cancel", "again", *where).returncode == 0
        unknown = loom_command("workers", "drain", "nobody", *where)
        assert (unknown.returncode, "unknown_worker" in unknown.stderr) == (66, True)
        assert loom_command("workers", "drain", info["name"], *where).returncode == 0
        assert worker.wait() == 0
        assert "Stopped." in worker.out.decode()
        assert loom_command("workers", "list", "-o", "jsonl", *where).stdout == ""
        server.signal(signal.SIGTERM)
        assert server.wait() == 0


def test_a_delayed_run_of_ones_own(loom_command: Loom) -> None:
    done = loom_command("actor", "run", "add", "--input", '{"a": 1}', "--app", "app:app", "--delay", "300ms",
                        "--priority", "high", "--id", "r")  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "2\n")
    shown = json.loads(loom_command("runs", "show", "r", "-o", "json").stdout)
    assert shown["priority"] == "high"
    assert shown["started"] - shown["created"] > 0.25
    refused = loom_command("actor", "run", "add", "1", "--app", "app:app", "--delay", "soon")
    assert refused.returncode == 64


def test_a_priority_that_is_given_wins_also_if_it_is_the_usual_one(loom_command: Loom) -> None:
    for given, priority in (((), "low"), (("--priority", "normal"), "normal")):
        run = ("actor", "run", "report", "3", "--app", "queued:app", "--id", priority, *given)
        assert loom_command(*run).stdout == "3\n"
        shown = json.loads(loom_command("runs", "show", priority, "-o", "json").stdout)
        assert shown.get("priority", "normal") == priority


def test_dead_letters_are_listed(loom_command: Loom) -> None:
    assert loom_command("actor", "run", "hopeless", "--app", "app:app", "--id", "r").returncode == 1
    rows = loom_command("runs", "list", "--state", "dead").stdout.splitlines()
    assert [row.split()[:3] for row in rows[1:]] == [["r", "hopeless", "dead"]]
    assert loom_command("runs", "list", "--state", "failed", "-o", "jsonl").stdout == ""

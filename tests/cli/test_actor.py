"""`loom actor list` and `run`, piped: what programs get."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from .kit import Loom

APP = ("--app", "app:app")


def chunks(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_jsonl_prints_a_chunk_a_line(loom_command: Loom) -> None:
    done = loom_command("actor", "run", "count", "100", *APP, "--stream", "-o", "jsonl")
    assert (done.returncode, done.stderr) == (0, "")
    lines = chunks(done.stdout)
    assert [line["seq"] for line in lines] == list(range(1, 103))
    assert [line["data"] for line in lines if line["type"] == "data"] == [{"i": i} for i in range(100)]
    assert lines[0]["data"] == {"attempt": 1, "actor": "count", "kept_through": 0}
    assert lines[-1]["type"] == "complete"
    assert all(re.fullmatch(r"\d+-\d+", line["cursor"]) for line in lines)
    assert done.stdout.startswith('{"type":"start"')


def test_json_prints_one_array_of_the_same(loom_command: Loom) -> None:
    done = loom_command("actor", "run", "count", "3", *APP, "--stream", "-o", "json")
    assert done.returncode == 0
    assert [chunk["type"] for chunk in json.loads(done.stdout)] == ["start", "data", "data", "data", "complete"]


def test_table_prints_a_row_a_chunk(loom_command: Loom) -> None:
    done = loom_command("actor", "run", "echo", "one " + "x" * 200, *APP, "--stream", "-o", "table")
    assert done.returncode == 0
    rows = [row.split() for row in done.stdout.splitlines()]
    assert rows[0] == ["SEQ", "TIME", "TYPE", "DATA"]
    assert [row[2] for row in rows[1:]] == ["start", "data", "data", "complete"]
    assert "x" * 200 in done.stdout


def test_text_is_the_text_alone(loom_command: Loom) -> None:
    done = loom_command("actor", "run", "echo", "one\x1b two\nthree", *APP, "--stream")
    assert (done.stdout, done.stderr, done.returncode) == ("one\x1b two\nthree \n", "", 0)


def test_text_of_values_is_their_json(loom_command: Loom) -> None:
    done = loom_command("actor", "run", "count", "2", *APP, "--stream")
    assert done.stdout == '{"i":0}\n{"i":1}\n'


def test_text_comes_as_it_is_said(loom_command: Loom) -> None:
    with loom_command.running("actor", "run", "pieces", '["one", "two"]', *APP, "--stream", "--id", "r") as running:
        running.until("one")
        assert loom_command("runs", "send", "r", "go").returncode == 0
        running.until("onetwo")
        assert loom_command("runs", "send", "r", "go").returncode == 0
        assert running.wait() == 0
        assert running.out == b"onetwo\n"


def test_a_restart_is_noted_where_nothing_can_be_taken_back(loom_command: Loom) -> None:
    done = loom_command("actor", "run", "flaky", *APP, "--stream")
    assert done.stdout == "attempt 1 attempt 2 stands\n"
    assert done.stderr == "note: attempt 2 took back the last chunk of the output: OSError: try again\n"


@pytest.mark.parametrize(
    ("arguments", "printed"),
    [
        (["echo", "one two"], "one two \n"),
        (["add", '{"a": 1, "b": 2}'], "3\n"),
        (["count", "2"], '[\n  {\n    "i": 0\n  },\n  {\n    "i": 1\n  }\n]\n'),
        (["nothing"], ""),
    ],
)
def test_without_stream_the_result_is_printed(loom_command: Loom, arguments: list[str], printed: str) -> None:
    done = loom_command("actor", "run", *arguments, *APP)
    assert (done.stdout, done.stderr, done.returncode) == (printed, "", 0)


def test_without_stream_json_is_the_run_with_its_result(loom_command: Loom) -> None:
    done = loom_command("actor", "run", "echo", "one two", *APP, "-o", "json", "--id", "r", "--key", "k")
    run = json.loads(done.stdout)
    assert (run["id"], run["actor"], run["state"], run["key"]) == ("r", "echo", "completed", "k")
    assert (run["input"], run["result"]) == ({"text": "one two"}, "one two ")
    failed = loom_command("actor", "run", "fails", *APP, "-o", "jsonl")
    assert failed.returncode == 1
    assert json.loads(failed.stdout)["error"]["code"] == "run_failed"
    assert failed.stderr.startswith("error: ValueError: the producer broke, at app.py:")


PARTS = ("actor", "run", "chat", "hi", "--app", "parts:app")
USAGE = {"input_tokens": 12, "output_tokens": 40, "calls": 1}


def test_parts_that_are_text_are_shown_as_text(loom_command: Loom) -> None:
    streamed = loom_command(*PARTS, "--stream").stdout
    assert "Rivers run to the sea. No more.\n" in streamed
    assert '{"part":"reasoning","text":"hm"}\n' in streamed
    assert loom_command(*PARTS).stdout == "Rivers run to the sea. No more.\n"


def test_what_the_models_used_is_shown(loom_command: Loom) -> None:
    lines = chunks(loom_command(*PARTS, "--stream", "-o", "jsonl", "--id", "r").stdout)
    assert lines[-1]["usage"] == USAGE
    assert [line["usage"] for line in chunks(loom_command("runs", "tail", "r", "-o", "jsonl").stdout)[-1:]] == [USAGE]
    assert json.loads(loom_command("runs", "tail", "r", "-o", "json").stdout)[-1]["usage"] == USAGE
    assert '"usage":{"input_tokens":12' in loom_command("runs", "tail", "r", "-o", "table").stdout
    assert json.loads(loom_command(*PARTS, "-o", "json").stdout)["usage"] == USAGE
    assert "usage    12 tokens in, 40 out" in loom_command(*PARTS, "-o", "table").stdout


@pytest.mark.parametrize(
    ("actor", "arguments", "stdin", "input"),
    [
        ("echo", ["--", "--hello"], b"", {"text": "--hello"}),
        ("echo", ["-"], "müde\n".encode(), {"text": "müde\n"}),
        ("count", ["--input", '{"n": 0}'], b"", {"n": 0}),
        ("nothing", [], b"", {}),
    ],
)
def test_input_comes_as_an_argument_as_an_option_or_on_standard_input(
    loom_command: Loom, actor: str, arguments: list[str], stdin: bytes, input: Any
) -> None:
    done = loom_command("actor", "run", actor, *APP, "-o", "json", *arguments, input=stdin)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout).get("input") == input


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (["nope"], 64, "error: no actor is named 'nope'"),
        (["count", "many"], 65, "error: n: Expected `int`, got `str` (invalid_input)"),
        (["count", "--input", "{"], 65, "error: --input: not JSON"),
        (["count", "1", "--input", "1"], 64, "error: give the input once"),
        (["count"], 65, "error: n: missing (invalid_input)"),
        (["count", "-5", "--id", "no spaces"], 65, "error: id: 'no spaces' is no valid name"),
        (["count", "1", "--store", "http://x"], 64, "error: --store 'http://x' is a server"),
        (["count", "1", "--store", "nope://x"], 64, "error: no store is named by"),
        (["count", "1", "-o", "xml"], 64, 'error: Invalid value "xml" for -o'),
        (["count", "1", "--nope"], 64, "error: Unknown option: --nope"),
        ([], 64, "error:"),
    ],
)
def test_wrong_calls_are_one_line_with_a_code(loom_command: Loom, arguments: list[str], code: int, line: str) -> None:
    done = loom_command("actor", "run", *arguments, *APP)
    first, *rest = done.stderr.splitlines()
    assert first.startswith(line)
    assert re.search(r"\([a-z_]+\)$", first)
    assert not [other for other in rest if not other.startswith("hint: ")]
    assert (done.returncode, done.stdout) == (code, "")


def test_url_and_store_contradict_each_other(loom_command: Loom) -> None:
    done = loom_command("actor", "run", "count", "1", "--url", "http://127.0.0.1:1", *APP)
    assert done.returncode == 64
    assert done.stderr.startswith("error: --url and --app contradict each other")


def test_loom_debug_shows_the_traceback(loom_command: Loom) -> None:
    loom_command.env["LOOM_DEBUG"] = "1"
    done = loom_command("actor", "run", "nope", *APP)
    assert "Traceback" in done.stderr
    assert "error: no actor is named" in done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_cancels_and_waits_for_the_confirmation(loom_command: Loom, number: signal.Signals, code: int) -> None:
    with loom_command.running("actor", "run", "forever", *APP, "--stream", "--id", "r") as running:
        running.until("said")
        running.signal(number)
        assert running.wait() == code
        assert running.out == b"said \n"
        assert running.err == b"error: the run was cancelled (cancelled)\n"
    assert "state    cancelled" in loom_command("runs", "show", "r").stdout


def test_a_reader_that_leaves_ends_the_run(loom_command: Loom) -> None:
    with loom_command.running("actor", "run", "flood", *APP, "--stream", "--id", "r") as running:
        running.until("xxx")
        assert running.process.stdout is not None
        running.process.stdout.close()
        assert running.wait() == 141
        assert running.err == b""
    assert "state    cancelled" in loom_command("runs", "show", "r").stdout


def test_a_reader_that_pauses_holds_nothing_else_up(loom_command: Loom) -> None:
    """The command's heartbeats go on while nobody takes its output: a signal is still handled."""
    with loom_command.running("actor", "run", "flood", *APP, "--stream", "--id", "r") as running:
        running.until("xxx")  # and no further
        shown = loom_command("runs", "show", "r").stdout
        assert "state    running" in shown
        running.signal(signal.SIGINT)
        assert running.wait() == 130


def test_what_a_producer_prints_does_not_mix_with_the_output(loom_command: Loom) -> None:
    done = loom_command("actor", "run", "prints", *APP, "--stream", "-o", "jsonl")
    assert [chunk["data"] for chunk in chunks(done.stdout) if chunk["type"] == "data"] == ["said\n", "said again\n"]
    # A print is two writes, its text and its line end: those of two threads may stand between each other.
    assert sorted(done.stderr.replace("\n", "").split("printed to ")) == ["", "stderr", "stdout"]


def test_what_a_killed_command_left_is_ended_by_the_next(loom_command: Loom) -> None:
    assert loom_command("actor", "run", "dies", *APP, "--id", "r").returncode == -signal.SIGKILL
    shown = loom_command("runs", "show", "r").stdout
    assert "state    lost" in shown
    assert "the command that drove it was killed (run_lost)" in shown
    assert loom_command("actor", "run", "dies", *APP, "--id", "r").returncode == 1


def test_what_lives_is_left_alone(loom_command: Loom) -> None:
    with loom_command.running("actor", "run", "forever", *APP, "--stream", "--id", "r") as running:
        running.until("said")
        assert loom_command("actor", "run", "count", "1", *APP).returncode == 0
        assert "state    running" in loom_command("runs", "show", "r").stdout


def test_a_worker_of_a_command_leaves_other_runs_alone(loom_command: Loom) -> None:
    assert loom_command("actor", "run", "count", "1", *APP).returncode == 0  # makes the store
    run = loom_command.begin("count", 1)
    assert loom_command("actor", "run", "count", "1", *APP).returncode == 0
    assert "state    queued" in loom_command("runs", "show", run).stdout


def test_the_state_folder_is_its_users_alone(loom_command: Loom) -> None:
    assert loom_command("actor", "run", "nothing", *APP).returncode == 0
    folder = loom_command.state / "loom"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in (folder / "cli").iterdir()] == ["id"]


def test_a_state_folder_that_cannot_be_made_is_told(loom_command: Loom) -> None:
    loom_command.state.write_text("a file")
    done = loom_command("actor", "run", "nothing", *APP)
    assert done.returncode == 64
    assert done.stderr.startswith("error: cannot make the state folder")


def test_the_environment_names_app_and_store(loom_command: Loom, tmp_path: Path) -> None:
    loom_command.env.update(LOOM_APP="app:app", LOOM_STORE=f"sqlite:///{tmp_path}/other.db")
    assert loom_command("actor", "run", "add", '{"a": 1}').stdout == "2\n"
    assert (tmp_path / "other.db").exists()
    assert "add" in loom_command("runs", "list").stdout


def test_without_an_app_the_built_in_one_is_used(loom_command: Loom) -> None:
    listed = loom_command("actor", "list")
    assert listed.returncode == 0
    assert [line.split()[0] for line in listed.stdout.splitlines()] == ["ACTOR", "chat", "chat-agent", "wordcount"]
    counted = loom_command("actor", "run", "wordcount", "-", input=b"one two\nthree\n")
    assert json.loads(counted.stdout) == {"name": "total", "lines": 2, "words": 3, "bytes": 14}


def test_actors_are_listed_for_people_and_programs(loom_command: Loom) -> None:
    rows = loom_command("actor", "list", *APP).stdout.splitlines()
    assert rows[0].split() == ["ACTOR", "INPUT", "DESCRIPTION"]
    assert ["add", "a,", "[b]"] in [row.split() for row in rows]
    assert "Says a text, a word at a time." in "\n".join(rows)
    listed = json.loads(loom_command("actor", "list", *APP, "-o", "json").stdout)
    assert [actor["name"] for actor in listed] == sorted(actor["name"] for actor in listed)
    assert os.linesep.join(actor["name"] for actor in listed) == "\n".join(
        json.loads(line)["name"] for line in loom_command("actor", "list", *APP, "-o", "jsonl").stdout.splitlines()
    )

"""What is on a real terminal's screen, 80 by 24, while and after `loom actor run --stream`."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest

from .kit import CTRL_C, Loom

RUN = ("actor", "run", "--app", "app:app", "--stream")
SGR_COLOUR = re.compile(rb"\x1b\[(?:[0-9;]*;)?(?:3[0-8]|4[0-8]|9[0-7])(?:;[0-9;]*)?m")


def go(loom_command: Loom, run: str) -> None:
    """Tell a run of `pieces` or `steps` to go on."""
    assert loom_command("runs", "send", run, "go").returncode == 0


def test_text_comes_over_a_live_line_which_gives_way_to_the_end(loom_command: Loom) -> None:
    parts = '["Rivers run", " to the sea."]'
    with loom_command.terminal(*RUN, "pieces", parts, "--id", "r") as terminal:
        terminal.until("Rivers run")
        terminal.until(lambda: "1 token" in terminal.text)
        assert terminal.rows[0] == "Rivers run"
        assert re.fullmatch(r"[⠀-⣿] 1 token( · \d+\.\d/s)? · \d+\.\d s", terminal.rows[1])
        assert (terminal.screen.cursor.x, terminal.screen.cursor.y) == (len("Rivers run"), 0)
        go(loom_command, "r")
        terminal.until("to the sea.")
        terminal.until(lambda: "2 tokens" in terminal.text)
        go(loom_command, "r")
        assert terminal.wait() == 0
        assert re.fullmatch(r"Rivers run to the sea.\n✓ Complete \(2 tokens, \d+\.\d s\)", terminal.text)


def test_a_spinner_turns_until_the_first_chunk(loom_command: Loom) -> None:
    with loom_command.terminal(*RUN, "pieces", '["", "x"]', "--id", "r") as terminal:
        seen: set[str] = set()

        def three_frames() -> bool:
            seen.add(terminal.rows[0][:1])
            return len(seen - {""}) >= 3

        terminal.until(three_frames)
        assert seen <= set("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏") | {""}
        terminal.type(CTRL_C)
        terminal.wait()


def test_progress_is_a_bar(loom_command: Loom) -> None:
    with loom_command.terminal(*RUN, "steps", "2", "--id", "r") as terminal:
        terminal.until("step 0")
        assert re.fullmatch(r". ━{20}   0% step 0 \d+\.\d s", terminal.rows[0])
        go(loom_command, "r")
        terminal.until("step 1")
        assert terminal.rows[0] == "did 0"
        assert re.match(r". ━{10}╺?━+  50% step 1 1 token", terminal.rows[1])
        go(loom_command, "r")
        assert terminal.wait() == 0
        assert terminal.rows[:3] == ["did 0", "did 1", '· stage "tidying up"']
        assert terminal.rows[3].startswith("✓ Complete (3 chunks, ")


def test_long_text_without_a_line_end_wraps_between_words_and_scrolls(loom_command: Loom) -> None:
    text = " ".join(f"word{number}" for number in range(500))
    with loom_command.terminal(*RUN, "echo", text) as terminal:
        assert terminal.wait() == 0
        rows = terminal.text.split("\n")
        assert " ".join(rows[:-1]).split() == text.split()
        assert all(len(row) < 80 for row in rows)
        assert rows[-1].startswith("✓ Complete (500 tokens, ")
        assert not any(character in row for row in rows for character in "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏")


def test_wide_characters_stand_where_they_belong(loom_command: Loom) -> None:
    with loom_command.terminal(*RUN, "echo", " ".join(["日本語のテキスト"] * 20)) as terminal:
        assert terminal.wait() == 0
        text = terminal.text.rpartition("\n")[0]
        assert re.sub(r"\s", "", text) == "日本語のテキスト" * 20


def test_parts_are_text_and_what_they_used_stands_in_the_end(loom_command: Loom) -> None:
    with loom_command.terminal("actor", "run", "chat", "hi", "--app", "parts:app", "--stream") as terminal:
        assert terminal.wait() == 0
        assert "\nRivers run to the sea. No more.\n" in terminal.text
        end = r"✓ Complete \(\d chunks, \d+\.\d s, 12 tokens in, 40 out\)"
        assert re.fullmatch(end, terminal.text.splitlines()[-1])


def test_values_are_a_line_each_and_a_result_is_shown(loom_command: Loom) -> None:
    with loom_command.terminal(*RUN, "count", "3") as terminal:
        assert terminal.wait() == 0
        assert terminal.rows[:3] == ['{"i":0}', '{"i":1}', '{"i":2}']
        assert terminal.rows[3].startswith("✓ Complete (3 chunks, ")
    with loom_command.terminal(*RUN, "add", '{"a": 2}') as terminal:
        assert terminal.wait() == 0
        assert re.fullmatch(r"3\n✓ Complete \(\d+\.\d s\)", terminal.text)


def test_without_stream_only_the_result_is_shown(loom_command: Loom) -> None:
    with loom_command.terminal("actor", "run", "echo", "one two", "--app", "app:app") as terminal:
        assert terminal.wait() == 0
        assert re.fullmatch(r"one two\n✓ Complete \(2 tokens, \d+\.\d s\)", terminal.text)


def test_a_result_wraps_between_words(loom_command: Loom) -> None:
    text = " ".join(f"word{i}" for i in range(100))
    with loom_command.terminal("actor", "run", "echo", text, "--app", "app:app") as terminal:
        assert terminal.wait() == 0
        rows = [row for row in terminal.rows if row.startswith("word")]
        assert len(rows) > 5
        assert " ".join(rows) == text


def test_a_failure_says_how_and_why(loom_command: Loom) -> None:
    with loom_command.terminal(*RUN, "fails") as terminal:
        assert terminal.wait() == 1
        rows = terminal.text.split("\n")
        assert rows[0] == "so far so good"
        assert re.fullmatch(r"✗ Failed \(1 token, \d+\.\d s\)", rows[1])
        assert re.fullmatch(
            r"error: ValueError: the producer broke, at app\.py:\d+ in fails \(run_failed\)\n?hint: .*",
            "".join(rows[2:]),
        )


def test_a_restart_says_that_what_stands_above_no_longer_counts(loom_command: Loom) -> None:
    with loom_command.terminal(*RUN, "flaky") as terminal:
        assert terminal.wait() == 0
        rows = terminal.text.split("\n")
        assert rows[:3] == [
            "attempt 1",
            "↻ Attempt 2 starts over: OSError: try again; what stands above no longer counts",
            "attempt 2 stands",
        ]
        assert rows[3].startswith("✓ Complete (2 tokens, ")


def test_ctrl_c_cancels_and_waits_for_the_confirmation(loom_command: Loom) -> None:
    with loom_command.terminal(*RUN, "forever", "--id", "r") as terminal:
        terminal.until("said")
        terminal.type(CTRL_C)
        assert terminal.wait() == 130
        assert re.search(r"✗ Cancelled \(1 token, \d+\.\d s\)$", terminal.text)
    assert "cancelled" in loom_command("runs", "list").stdout


def test_a_second_ctrl_c_leaves_at_once(loom_command: Loom) -> None:
    with loom_command.terminal(*RUN, "stubborn", "--id", "r") as terminal:
        terminal.until("here")
        terminal.type(CTRL_C)
        terminal.until("cancelling; Ctrl-C again leaves at once")
        terminal.type(CTRL_C)
        assert terminal.wait() == 130
        assert "cancelling" not in terminal.text  # the live line is not left behind


def test_ctrl_c_before_anything_has_begun_leaves(loom_command: Loom, tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(
        "import signal\nsignal.raise_signal(signal.SIGINT)\nimport loom\napp = loom.App()\n"
    )
    loom_command.cwd = tmp_path
    with loom_command.terminal("actor", "run", "x", "--app", "slow:app") as terminal:
        assert terminal.wait() == 130


def test_leaving_before_a_server_has_answered_leaves_nothing_behind(loom_command: Loom) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with loom_command.terminal("actor", "run", "x", "--stream", "--url", url) as terminal:
            terminal.until("waiting for a worker")
            terminal.type(CTRL_C)
            assert terminal.wait() == 130
            assert terminal.text in ("", "^C")


def test_an_error_does_not_stand_in_the_live_line(loom_command: Loom) -> None:
    with loom_command.terminal(*RUN, "nope") as terminal:
        assert terminal.wait() == 64
        assert terminal.rows[0].startswith("error: no actor is named 'nope'")


def test_what_a_producer_prints_neither_tears_the_screen_nor_is_lost(loom_command: Loom) -> None:
    with loom_command.terminal(*RUN, "prints") as terminal:
        assert terminal.wait() == 0
        rows = terminal.text.split("\n")
        assert sorted(rows[:4]) == ["printed to stderr", "printed to stdout", "said", "said again"]


@pytest.mark.parametrize("actor", [("echo", "one two"), ("fails",), ("flaky",)])
def test_no_color_is_heeded(loom_command: Loom, actor: tuple[str, ...]) -> None:
    with loom_command.terminal(*RUN, *actor) as terminal:
        terminal.wait()
        assert SGR_COLOUR.search(terminal.raw)
    loom_command.env["NO_COLOR"] = "1"
    with loom_command.terminal(*RUN, *actor) as terminal:
        terminal.wait()
        assert not SGR_COLOUR.search(terminal.raw)


def test_a_dumb_terminal_gets_plain_text(loom_command: Loom) -> None:
    with loom_command.terminal(*RUN, "echo", "one two", term="dumb") as terminal:
        assert terminal.wait() == 0
        assert terminal.raw == b"one two \r\n"


def test_a_tiny_terminal_has_no_live_line(loom_command: Loom) -> None:
    with loom_command.terminal(*RUN, "echo", "one two", columns=9, lines=2) as terminal:
        assert terminal.wait() == 0
        assert "one two" in terminal.text


def test_control_characters_of_the_output_do_not_reach_the_terminal(loom_command: Loom) -> None:
    with loom_command.terminal(*RUN, "echo", "a\x1b[2Jb\x07") as terminal:
        assert terminal.wait() == 0
        assert terminal.rows[0] == "a␛[2Jb␇"


def test_tail_leaves_on_ctrl_c_and_says_how_to_go_on(loom_command: Loom) -> None:
    with loom_command.running("worker", "app:app") as worker:
        worker.until("worker for app:app")
        run = loom_command.begin("pieces", ["one ", "two "])
        with loom_command.terminal("runs", "tail", run) as terminal:
            terminal.until("one")
            terminal.type(CTRL_C)
            assert terminal.wait() == 130
            line = re.search(rf"^loom (runs tail {run} --after \d+-2)$", terminal.text, re.MULTILINE)
        assert line is not None
        for _ in range(2):
            go(loom_command, run)
        with loom_command.terminal(*line[1].split()) as terminal:
            assert terminal.wait() == 0
            assert re.fullmatch(r"two\n✓ Complete \(1 token, \d+\.\d s\)", terminal.text)


def test_tail_of_an_ended_run_tells_how_long_the_run_took(loom_command: Loom) -> None:
    assert loom_command("actor", "run", "echo", "one two", "--app", "app:app", "--id", "r").returncode == 0
    with loom_command.terminal("runs", "tail", "r") as terminal:
        assert terminal.wait() == 0
        assert re.fullmatch(r"one two\n✓ Complete \(2 tokens, 0\.\d s\)", terminal.text)

"""`loom doctor` finds what is broken, says what to do, and tells no secret."""

from __future__ import annotations

import json
from pathlib import Path

from loom.cli.doctor import Finding, lines_of
from tests.servers.servers import Servers

from .kit import Loom


def findings(loom_command: Loom) -> dict[str, dict[str, str]]:
    done = loom_command("doctor", "-o", "json")
    assert done.stderr == ""
    found = {finding["check"]: finding for finding in json.loads(done.stdout)}
    assert done.returncode == any(finding["status"] == "bad" for finding in found.values())
    return found


def test_all_is_well_in_a_sound_place(loom_command: Loom) -> None:
    done = loom_command("doctor")
    assert (done.returncode, done.stderr) == (0, "")
    words = [line.split()[1] for line in done.stdout.splitlines() if not line.startswith(" ")]
    assert words == ["python", "packages", "sqlite", "state", "store", "model", "server", "terminal"]
    assert {finding["status"] for finding in findings(loom_command).values()} == {"good"}


def test_nothing_is_left_in_the_store(loom_command: Loom) -> None:
    assert findings(loom_command)["store"]["status"] == "good"
    assert json.loads(loom_command("runs", "list", "-o", "json").stdout) == []


def test_a_state_folder_that_others_can_read(loom_command: Loom) -> None:
    folder = loom_command.state / "loom"
    folder.mkdir(parents=True, mode=0o755)
    found = findings(loom_command)["state"]
    assert (found["status"], found["advice"]) == ("warning", f"chmod 700 {folder}")


def test_a_state_folder_that_cannot_be_made(loom_command: Loom) -> None:
    loom_command.state.write_text("a file")
    found = findings(loom_command)
    assert found["state"]["status"] == found["store"]["status"] == "bad"
    assert "--store" in found["state"]["advice"]


def test_a_store_that_is_no_database(loom_command: Loom, tmp_path: Path) -> None:
    (tmp_path / "runs.db").write_text("no database at all\n" * 100)
    loom_command.env["LOOM_STORE"] = f"sqlite:///{tmp_path}/runs.db"
    assert findings(loom_command)["store"]["status"] == "bad"


def test_a_redis_that_evicts(loom_command: Loom, servers: Servers) -> None:
    """A place where runs work, and where they get lost one day."""
    with servers.small("redis7", "100mb", password="secret-four", config={"maxmemory-policy": "allkeys-lru"}) as server:
        loom_command.env["LOOM_STORE"] = server.url()
        store = findings(loom_command)["store"]
    assert store["status"] == "warning"
    assert f"redis://127.0.0.1:{server.port} (Redis 7.0." in store["found"]
    assert store["found"].endswith("(memory)")
    assert "allkeys-lru" in store["advice"]
    assert "secret" not in json.dumps(store)


def test_a_durable_redis(loom_command: Loom, servers: Servers) -> None:
    with servers.durable("valkey") as server:
        loom_command.env["LOOM_STORE"] = server.url()
        store = findings(loom_command)["store"]
    assert (store["status"], store.get("advice", "")) == ("good", "")
    assert store["found"].endswith("(disk)")


def test_a_redis_user_whose_rights_do_not_reach_to_the_queue(loom_command: Loom, servers: Servers) -> None:
    rights = ">hush ~loom:* ~{loom}:* &loom:* &{loom}:* +@read +@write +@pubsub +@connection +@scripting"
    with servers.server("redis7", users={"alice": rights}) as server:
        loom_command.env["LOOM_STORE"] = server.url(user="alice", password="hush")
        store = findings(loom_command)["store"]
    assert store["status"] == "bad"
    assert "does not let us" in store["found"]


def test_a_redis_out_of_reach(loom_command: Loom) -> None:
    loom_command.env["LOOM_STORE"] = "redis://:secret-five@127.0.0.1:1"
    store = findings(loom_command)["store"]
    assert store["status"] == "bad"
    assert store["found"].startswith("Redis at 127.0.0.1:1 does not answer")
    assert "secret" not in json.dumps(store)


def test_a_server_and_a_model_out_of_reach(loom_command: Loom) -> None:
    loom_command.env.update(
        LOOM_URL="http://127.0.0.1:1",
        LOOM_API_KEY="secret-one",
        OPENAI_BASE_URL="http://127.0.0.1:1/v1",
        OPENAI_API_KEY="secret-three",
    )
    found = findings(loom_command)
    assert found["server"]["status"] == found["model"]["status"] == "bad"
    assert found["model"]["found"].startswith("http://127.0.0.1:1/v1: ")
    assert found["model"]["advice"].startswith("check OPENAI_BASE_URL")
    assert "secret" not in json.dumps(found)


def test_a_model_that_no_worker_could_use_here(loom_command: Loom) -> None:
    loom_command.env.update(OPENAI_BASE_URL="http://user:secret-two@127.0.0.1:1/v1")
    model = findings(loom_command)["model"]
    assert model["status"] == "bad"
    assert "OPENAI_API_KEY" in model["found"]
    assert "secret" not in json.dumps(model)


def test_a_model_whose_url_has_no_scheme(loom_command: Loom) -> None:
    loom_command.env.update(OPENAI_BASE_URL="localhost:11434")
    model = findings(loom_command)["model"]
    assert "http:// or https://" in model["found"]
    assert "OPENAI_BASE_URL" in model["found"]


MODELS = """
import loom
from loom.producers.llm import MarkovWriter
from loom.testing import FakeAI

async def answer(question: str, ctx: loom.Context) -> None:
    pass

async def add(a: int, b: int) -> int:
    return a + b

app, quiet, scripted = loom.App(), loom.App(ai=MarkovWriter), loom.App(ai=FakeAI([]))
app.actor("support")(answer)
app.actor("count")(answer)
app.actor(add)
quiet.actor("write")(answer)
scripted.actor("test")(answer)
app.include(quiet)
app.include(scripted)
plain, needy = loom.App(), loom.App()
plain.actor(add)
needy.actor("agent", requires=["ctx.ai"])(answer)
"""


def models(loom_command: Loom, *more: str) -> list[tuple[str, str]]:
    found = json.loads(loom_command("doctor", "-o", "json", *more).stdout)
    return [(finding["status"], finding["found"]) for finding in found if finding["check"] == "model"]


def test_the_model_of_every_actor_of_an_app(loom_command: Loom, tmp_path: Path) -> None:
    (tmp_path / "models.py").write_text(MODELS)
    loom_command.env |= {"LOOM_APP": "models:app", "PYTHONPATH": str(tmp_path)}
    assert models(loom_command) == [
        ("warning", "none: using it raises (ctx.ai of count, support)"),
        ("good", "loom.testing.fake_ai.FakeAI (ctx.ai of test)"),
        ("good", "the built-in writer: no key, no network, little sense (ctx.ai of write)"),
    ]
    assert models(loom_command, "--app", "models:needy") == [("bad", "none: using it raises (ctx.ai of agent)")]
    ((status, found),) = models(loom_command, "--app", "models:plain")
    assert (status, "no actor takes a loom.Context" in found) == ("good", True)
    ((status, found),) = models(loom_command, "--app", "models:no_app")
    assert (status, "no 'no_app'" in found) == ("bad", True)


def test_the_other_provider_s_model(loom_command: Loom) -> None:
    loom_command.env.update(ANTHROPIC_BASE_URL="http://127.0.0.1:1", ANTHROPIC_API_KEY="secret")
    model = findings(loom_command)["model"]
    assert (model["status"], model["advice"][:24]) == ("bad", "check ANTHROPIC_BASE_URL")


def test_what_it_found_stands_in_its_column() -> None:
    found = lines_of(Finding("packages", "good", ", ".join(["some-package 1.2.3"] * 9), "do this"), 80)
    assert found[-1] == "do this"
    assert len(found) > 3
    assert max(map(len, found)) < 80 - 13
    assert lines_of(Finding("packages", "good", "a b " * 50), 0) == ["a b " * 50]

"""A target that cannot be imported says why, and where, in one line."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from loom import App, UsageError
from loom.cli.target import BUILT_IN, load_app, target_of


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working directory; what is imported from it is forgotten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def why_not(target: str) -> str:
    with pytest.raises(UsageError) as caught:
        load_app(target)
    assert "\n" not in caught.value.message
    return caught.value.message


def test_an_app_is_found_in_the_working_directory(here: Path) -> None:
    (here / "mine1.py").write_text("import loom\nclass inner:\n    app = loom.App()\n")
    assert isinstance(load_app("mine1:inner.app"), App)


def test_the_built_in_app_is_an_app() -> None:
    assert isinstance(load_app(BUILT_IN), App)


def test_the_target_is_what_was_given_else_what_the_environment_names() -> None:
    assert target_of("a:b", {"LOOM_APP": "c:d"}) == "a:b"
    assert target_of(None, {"LOOM_APP": "c:d"}) == "c:d"
    assert target_of(None, {}) == BUILT_IN


@pytest.mark.parametrize(
    ("target", "guess"), [("app", "app:app"), ("app.py", "app:app"), ("src/app.py", "src.app:app"), (":app", "app:app")]
)
def test_what_is_no_target_gets_a_guess(target: str, guess: str) -> None:
    assert why_not(target) == f"{target!r} names no app (module:app): did you mean {guess}?"


def test_a_file_is_no_module() -> None:
    assert why_not("./app.py:main") == "'./app.py:main' names a file, not a module: did you mean app:main?"


def test_a_module_that_is_not_there(here: Path) -> None:
    assert why_not("mine2:app") == f"mine2:app: there is no module 'mine2' in {os.getcwd()} or installed"


def test_a_module_that_imports_what_is_not_there(here: Path) -> None:
    (here / "mine3.py").write_text("import os\nimport nowhere_to_be_found\n")
    assert why_not("mine3:app") == "mine3:app: mine3.py:2: No module named 'nowhere_to_be_found'"


def test_a_syntax_error(here: Path) -> None:
    (here / "mine4.py").write_text("x = 1\ndef broken(:\n")
    assert why_not("mine4:app") == "mine4:app: mine4.py:2: SyntaxError: invalid syntax"


def test_an_error_below_is_blamed_on_the_users_own_innermost_line(here: Path) -> None:
    (here / "mine5.py").write_text("import helper5\n")
    (here / "helper5.py").write_text("import json\n\n\njson.loads('{')\n")
    assert why_not("mine5:app").startswith("mine5:app: helper5.py:4: JSONDecodeError: Expecting property name")


def test_a_module_that_exits(here: Path) -> None:
    (here / "mine6.py").write_text("import sys\nsys.exit(3)\n")
    assert why_not("mine6:app") == "mine6:app: mine6.py:2: SystemExit: 3"


def test_an_actor_that_cannot_be_declared(here: Path) -> None:
    (here / "mine7.py").write_text("import loom\napp = loom.App()\n@app.actor\nasync def bad(*args): pass\n")
    message = why_not("mine7:app")
    assert message.startswith("mine7:app: mine7.py:3: UsageError: bad: parameter 'args'")


def test_a_name_that_is_not_there_tells_the_apps_that_are(here: Path) -> None:
    (here / "mine8.py").write_text("import loom\napplication = loom.App()\n")
    assert why_not("mine8:app") == "mine8:app: module mine8 has no 'app'; it has application"


def test_something_that_is_no_app(here: Path) -> None:
    (here / "mine9.py").write_text("app = 5\n")
    assert why_not("mine9:app") == "mine9:app is of type int, not a loom.App"

"""``module:app`` to the app it names; what cannot be imported says why and where in one line."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Mapping
from functools import reduce
from pathlib import Path

from loom.app import App
from loom.model.errors import UsageError

__all__ = ["BUILT_IN", "OWN", "load_app", "target_of"]

BUILT_IN = "loom.demo:app"
"""The app that is used when none is named."""

OWN = "loom.demo:local"
"""The same, where a command drives the run of its own user: it may read that user's files."""


def target_of(given: str | None, env: Mapping[str, str]) -> str:
    """The target: as given, by LOOM_APP, or the built-in app."""
    return given or env.get("LOOM_APP") or BUILT_IN


def load_app(target: str) -> App:
    """Import `target`, with the working directory first on the path, as uvicorn does. Raises `UsageError`."""
    module_name, colon, attribute = target.partition(":")
    if not module_name or not colon or not attribute:
        raise UsageError(f"{target!r} names no app (module:app): did you mean {_guess(target)}?")
    if module_name.endswith(".py") or "/" in module_name:
        raise UsageError(f"{target!r} names a file, not a module: did you mean {_guess(module_name, attribute)}?")
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    module = _import(module_name, target)
    try:
        app = reduce(getattr, attribute.split("."), module)
    except AttributeError:
        apps = [name for name, value in vars(module).items() if isinstance(value, App)]
        there = f"; it has {' and '.join(apps)}" if apps else ""
        raise UsageError(f"{target}: module {module_name} has no {attribute!r}{there}") from None
    if not isinstance(app, App):
        raise UsageError(f"{target} is of type {type(app).__name__}, not a loom.App")
    return app


def _import(name: str, target: str) -> object:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise UsageError(f"{target}: there is no module {error.name!r} in {os.getcwd()} or installed") from error
        raise UsageError(f"{target}: {_where(error)}{error}") from error
    except (Exception, SystemExit) as error:  # the user's module: whatever it raises becomes one line
        raise UsageError(f"{target}: {_where(error)}{_what(error)}") from error


def _what(error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        return f"SyntaxError: {error.msg}"
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _where(error: BaseException) -> str:
    """``file:line: `` of the user's own line: the innermost below the working directory, else the innermost of all."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{_short(error.filename)}:{error.lineno}: "
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<frozen")]
    frames = [frame for frame in frames if Path(frame.filename) != Path(__file__)]
    own = [frame for frame in frames if Path(frame.filename).is_relative_to(os.getcwd())]
    for frame in reversed(own or frames):
        if "importlib" not in Path(frame.filename).parts:
            return f"{_short(frame.filename)}:{frame.lineno}: "
    return ""


def _short(filename: str) -> str:
    path = Path(filename)
    return str(path.relative_to(os.getcwd())) if path.is_relative_to(os.getcwd()) else filename


def _guess(module: str, attribute: str = "app") -> str:
    name = module.strip(":").removesuffix(".py").strip("./").replace("/", ".")
    return f"{name or 'app'}:{attribute}"

"""The commands, by name. What a command needs is imported when it is called."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from difflib import get_close_matches

from cyclopts import App

import loom
from loom.model.errors import UsageError

__all__ = ["commands", "unknown_command"]


def commands() -> App:
    """The whole command line; calling it parses and runs, and raises what the command raises."""
    root = _group("loom", "Output that arrives over time: start it, follow it, resume it, cancel it.")
    actor = _group("actor", "What can be run, and running it.")
    runs = _group("runs", "Runs, ended or not.")
    queue = _group("queue", "What waits for a worker, and what workers have claimed.")
    workers = _group("workers", "Who drives the runs.")
    _add(root, "demo", "loom.cli.demo:demo", "A chat page that survives whatever you do to it: no key, no network.")
    _add(root, "serve", "loom.cli.serve:serve", "Serve an app over HTTP, with a worker in the same process.")
    _add(root, "worker", "loom.cli.serve:worker", "Drive the runs of a store.")
    root.command(actor)
    root.command(runs)
    root.command(queue)
    root.command(workers)
    _add(root, "doctor", "loom.cli.doctor:doctor", "Check this installation, and say what to do.")
    _add(root, "version", "loom.cli.about:version", "The versions that count in a bug report.")
    _add(actor, "list", "loom.cli.actor:list_actors", "What can be run: the actors of an app or of a server.")
    _add(actor, "run", "loom.cli.actor:run", "Run an actor. The run is ours: Ctrl-C cancels it.")
    _add(runs, "list", "loom.cli.runs:list_runs", "Runs, newest first.")
    _add(runs, "show", "loom.cli.runs:show", "What is known of a run.")
    _add(runs, "tail", "loom.cli.runs:tail", "Follow a run to its end, from the beginning or any cursor.")
    _add(runs, "send", "loom.cli.runs:send", "Tell a running run something.")
    _add(runs, "cancel", "loom.cli.runs:cancel", "End a run, and wait until it is really gone.")
    _add(runs, "retry", "loom.cli.runs:retry", "Start an ended run anew, be it a dead letter.")
    _add(queue, "show", "loom.cli.work:show_queue", "Open runs as the queue holds them.")
    _add(workers, "list", "loom.cli.work:list_workers", "The workers that told of themselves lately.")
    _add(workers, "drain", "loom.cli.work:drain", "Let a worker take nothing new, and finish or hand over the rest.")
    root.register_install_completion_command(help="Install completion for your shell.")
    return root


def unknown_command(group: Sequence[str], words: Sequence[str]) -> UsageError:
    """The command to write instead of ``loom <group> <words>``, whose first word names none there."""
    tree: dict[tuple[str, ...], App] = {("loom",): commands()}
    tree |= {("loom", name): app for name, app in _named(tree["loom",]).items() if _named(app)}
    here = ("loom", *group)
    names = sorted(_named(tree[here]))
    others = [where for where, app in sorted(tree.items()) if words[0] in _named(app)]
    close = get_close_matches(words[0], names, 1)
    if group and len(names) == 1:
        better = shlex.join([*here, *names, *words[1:]])
    elif others:
        better = " or ".join(shlex.join([*where, *words]) for where in others)
    elif close:
        better = shlex.join([*here, close[0], *words[1:]])
    else:
        better = f"{shlex.join(here)} --help"
    message = f"{shlex.join(here)} has no command {words[0]!r} (there are: {', '.join(names)})"
    return UsageError(message, details={"hint": better})


def _named(app: App) -> dict[str, App]:
    """The commands of a group; none of a command."""
    return {name: app[name] for name in app if not name.startswith("-")}


def _group(name: str, help: str) -> App:
    return App(name=name, help=help, version=loom.__version__, help_format="plaintext", result_action="return_value")


def _add(parent: App, name: str, path: str, help: str) -> None:
    parent.command(path, name=name, help=help, help_format="plaintext", result_action="return_value")

"""Draw what the docs say of tables in the code: the grammar, the error tree, the codes, the dialects; and the reference
of public names. Run it after changing one."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, get_overloads

import loom
import loom.producers
import loom.testing
import loom.wire.dialect
from loom.model import errors
from loom.model.grammar import TABLE, State
from loom.wire.dialects import DIALECTS

DOCS = Path(__file__).parent


def grammar() -> str:
    kinds = ["start", "output", "complete", "error"]
    rows = [["state", *kinds]]
    for state in State:
        rows.append([state.value, *(TABLE[state, kind].value if (state, kind) in TABLE else "-" for kind in kinds)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "```\n" + "\n".join(lines) + "\n```"


def tree() -> str:
    doc = errors.__doc__ or ""
    lines = [line.removeprefix("    ") for line in doc.splitlines() if re.match(r" {4}(LoomError|[├│└])", line)]
    return "```\n" + "\n".join(lines) + "\n```"


def codes() -> str:
    rows = ["| code | class | HTTP | exit | retryable |", "|---|---|---|---|---|"]
    for code, row in errors.CODES.items():
        retryable = "yes" if row.retryable else ""
        rows.append(f"| `{code}` | `{errors.class_of(code).__name__}` | {row.http} | {row.exit} | {retryable} |")
    return "\n".join(rows)


def dialects() -> str:
    rows = ["| Route | What it does | Dialect | Can read on |", "|---|---|---|---|"]
    for dialect in DIALECTS:
        resumes = "yes" if dialect.resumable else ""
        for route in dialect.routes:
            path = route.path.replace(":path}", "}")
            rows.append(f"| `{route.method} {path}` | {route.summary} | {dialect.name} | {resumes} |")
    return "\n".join(rows)


REFERENCE: tuple[ModuleType, ...] = (loom, loom.producers, loom.wire.dialect, loom.testing)
"""The modules whose names are public."""

WIDTH = 110
"""Of a signature's line, in characters."""


def reference() -> str:
    return "\n\n".join(entry for module in REFERENCE for entry in _module(module))


def _module(module: ModuleType) -> Iterator[str]:
    yield f"## {module.__name__}"
    for name in sorted(module.__all__, key=str.lower):
        thing = getattr(module, name)
        yield f"### {module.__name__}.{name}"
        if inspect.isclass(thing):
            yield from _class(name, thing)
        elif inspect.isfunction(thing):
            yield from _entries(name, _forms(thing, thing.__qualname__))
        else:
            yield f"```text\n{name} = {thing}\n```"


def _class(name: str, kind: type) -> Iterator[str]:
    called = not (issubclass(kind, BaseException) or getattr(kind, "_is_protocol", False))
    yield from _entries(f"class {name}", [kind], called=called)
    for base in kind.__mro__[-2::-1]:
        if base.__module__.startswith("loom"):
            for attribute, value in base.__dict__.items():
                if (
                    not attribute.startswith("_")
                    and _doc(value)
                    and attribute not in kind.__dict__.keys() - base.__dict__
                ):
                    yield from _member(name, attribute, base, value)


def _member(name: str, attribute: str, base: type, value: Any) -> Iterator[str]:
    if isinstance(value, property | functools.cached_property):
        yield from _entries(f"{name}.{attribute}", [value], called=False)
    elif callable(value) or isinstance(value, classmethod | staticmethod):
        forms = _forms(getattr(value, "__func__", value), f"{base.__qualname__}.{attribute}", base.__module__)
        kept = "async " if inspect.iscoroutinefunction(forms[0]) else ""
        yield from _entries(f"{kept}{name}.{attribute}", forms)


def _forms(thing: Any, qualname: str, module: str | None = None) -> Sequence[Any]:
    """Its overloads, those without words of their own first; without any, it."""
    named = SimpleNamespace(__module__=module or thing.__module__, __qualname__=qualname)
    overloads = get_overloads(named)  # type: ignore[arg-type]  # all that it asks of a function
    return overloads if any(one.__doc__ for one in overloads) else [*overloads[:-1], thing]


def _entries(name: str, forms: Sequence[Any], *, called: bool = True) -> Iterator[str]:
    heads = []
    for form in forms:
        heads.append(_head(name, inspect.signature(form)) if called and callable(form) else name)
        if _doc(form):
            yield "```text\n" + "\n".join(heads) + f"\n```\n\n{_doc(form)}"
            heads = []


def _head(name: str, signature: inspect.Signature) -> str:
    kept = [parameter for parameter in signature.parameters.values() if parameter.name not in ("self", "cls")]
    plain = signature.replace(parameters=kept)
    line = name + _unquoted(str(plain))
    if len(line) <= WIDTH:
        return line
    inside = [f"    {_unquoted(str(parameter))}," for parameter in kept]
    for place, parameter in enumerate(kept):
        if parameter.kind is parameter.KEYWORD_ONLY and (not place or kept[place - 1].kind < parameter.kind):
            inside.insert(place, "    *,")
            break
    returned = _unquoted(str(plain.replace(parameters=[])))[2:]
    return "\n".join([f"{name}(", *inside, f"){returned}"])


def _unquoted(text: str) -> str:
    """Without the quotes of annotations, and without places in memory."""
    return re.sub(r"<\w+ \S+ at 0x[0-9a-f]+>", "...", re.sub(r"(?<=: |> )'([^']+)'", r"\1", text))


def _doc(thing: Any) -> str:
    doc = inspect.cleandoc(getattr(thing, "__doc__", None) or "")
    return re.sub(r"``(.+?)``", r"`\1`", doc)


SECTIONS = {
    "concepts.md": {"grammar": grammar},
    "errors.md": {"tree": tree, "codes": codes},
    "http.md": {"dialects": dialects},
    "reference.md": {"reference": reference},
}


def drawn(name: str) -> str:
    """The page as it should be."""
    text = (DOCS / name).read_text()
    for section, draw in SECTIONS[name].items():
        opening = f"<!-- {section}: written by docs/generate.py -->\n"
        pattern = re.escape(opening) + r".*?<!-- end -->"
        text = re.sub(pattern, lambda _, o=opening, d=draw: f"{o}{d()}\n<!-- end -->", text, count=1, flags=re.DOTALL)
    return text


if __name__ == "__main__":
    for page in SECTIONS:
        (DOCS / page).write_text(drawn(page))

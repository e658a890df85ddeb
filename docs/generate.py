"""Draw what the docs say of tables in the code: the grammar, the error tree, the codes, the dialects. Run it after
changing one."""

from __future__ import annotations

import re
from pathlib import Path

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


SECTIONS = {
    "concepts.md": {"grammar": grammar},
    "errors.md": {"tree": tree, "codes": codes},
    "http.md": {"dialects": dialects},
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

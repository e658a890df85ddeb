"""A store of lists and dicts passes every shipped suite: the ports ask for no more. And how small stores are."""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import loom.stores.memory
from loom.testing.clock import StoreFactory
from loom.testing.conformance import StoreConformance
from loom.testing.machine import log_machine, queue_machine, run_machine, worker_machine

from . import toy


@contextmanager
def place() -> Iterator[StoreFactory]:
    yield toy.ToyStore


class TestConformance(StoreConformance):
    @pytest.fixture
    def make_store(self) -> StoreFactory:
        return toy.ToyStore


SHRINKS = pytest.mark.timeout(600)

TestLogMachine = SHRINKS(log_machine(place, examples=50))
TestRunMachine = SHRINKS(run_machine(place, examples=50))
TestQueueMachine = SHRINKS(queue_machine(place, examples=50))
TestWorkerMachine = SHRINKS(worker_machine(place))


def lines_of_code(path: Path) -> int:
    """Those that hold more than a comment or a docstring."""
    source = path.read_text()
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    code = {line for token in tokens if token.type not in NO_CODE for line in range(token.start[0], token.end[0] + 1)}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            code -= set(range(node.lineno, (node.end_lineno or 0) + 1))
    return len(code)


NO_CODE = (
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER
)  # fmt: skip


def test_the_ports_are_small() -> None:
    assert lines_of_code(Path(toy.__file__)) <= 350
    assert sum(map(lines_of_code, Path(loom.stores.memory.__file__).parent.glob("*.py"))) <= 600

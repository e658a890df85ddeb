"""A browser, and a demo to look at with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.chromium import chromium

from .kit import Demo
from .model import Model
from .reader import Reader, reading


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """One that is not killed. Tests share it, each with a browser context and a conversation of its own."""
    with closing(Demo(tmp_path_factory.mktemp("demo"))) as demo:
        demo.start()
        yield demo


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[Demo]:
    """One to be killed."""
    with closing(Demo(tmp_path)) as demo:
        demo.start()
        yield demo


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    with Model() as model:
        yield model


@pytest.fixture(scope="module")
def scripted(tmp_path_factory: pytest.TempPathFactory, model: Model) -> Iterator[Demo]:
    """One whose answers are the test's."""
    with closing(Demo(tmp_path_factory.mktemp("scripted"), model.url)) as demo:
        demo.start()
        yield demo


@pytest.fixture
def mortal_scripted(tmp_path: Path, model: Model) -> Iterator[Demo]:
    """One to be killed, whose answers are the test's."""
    with closing(Demo(tmp_path, model.url)) as demo:
        demo.start()
        yield demo


@pytest.fixture
def reader(browser: Browser, demo: Demo) -> Iterator[Reader]:
    with reading(browser, demo) as reader:
        yield reader

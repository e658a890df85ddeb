"""The page on Redis, its worker another process: that is killed, another takes over, the page goes on."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.chromium import needs_chromium
from tests.cli.kit import Running
from tests.servers.fixtures import own
from tests.servers.server import Server

from .kit import Demo
from .reader import LONGEST, ask, check_whole, cursors, notes, reading, run_of, status, wait_chunks

pytestmark = needs_chromium


@pytest.fixture
def apart(tmp_path: Path, redis7: Server) -> Iterator[Demo]:
    """A gateway without a worker, as docs/redis.md starts it."""
    with closing(Demo(tmp_path, store=own(redis7.url()))) as demo:
        demo.start()
        yield demo


def test_kill_9_of_the_worker_and_the_page_goes_on(browser: Browser, apart: Demo) -> None:
    with reading(browser, apart) as reader, closing(apart.worker()) as worker:
        page = reader.tab()
        ask(page, LONGEST)
        wait_chunks(page, 10)
        kill(worker)
        seen = cursors(page)
        expect(status(page)).to_contain_text("Live")  # the gateway is well: nothing was lost that the page could tell
        with closing(apart.worker()):
            expect(status(page)).to_contain_text("Complete")
        check_whole(page, apart)
        assert cursors(page)[: len(seen)] == seen
        assert [chunk["data"]["attempt"] for _, chunk in apart.log(run_of(page)) if chunk["type"] == "start"] == [1, 2]
        assert not [note for note in notes(page) if re.search("lost|again", note)]  # its connection stood all the time


def test_a_question_waits_for_a_worker(browser: Browser, apart: Demo) -> None:
    with reading(browser, apart) as reader:
        page = reader.tab()
        ask(page, LONGEST)
        expect(page.locator("#trace-run")).to_contain_text("run ")
        with closing(apart.worker()):
            expect(status(page)).to_contain_text("Complete")
        check_whole(page, apart)


def kill(worker: Running) -> None:
    worker.signal(signal.SIGKILL)
    assert worker.wait() == -signal.SIGKILL

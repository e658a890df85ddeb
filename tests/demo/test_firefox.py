"""The page in a real Firefox: that nothing of it is Chromium's own."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.firefox import Tab, firefox, needs_firefox

from .kit import Demo

pytestmark = needs_firefox

STATE = "document.querySelector('#state').dataset.state"
CHUNKS = "[...document.querySelectorAll('.chunk')].map(row => row.dataset.cursor)"
RUN = "document.querySelector('#trace-run').textContent.replace('run ', '')"
ANSWER = "document.querySelector('.answer:last-of-type .words').textContent"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    with closing(Demo(tmp_path_factory.mktemp("state"))) as demo:
        demo.start()
        yield demo


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with firefox(tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.fixture
def tab(browser: Tab, demo: Demo) -> Tab:
    """The page, in a conversation of its own."""
    browser.go("about:blank")
    browser.go(f"{demo.url}/#/{uuid.uuid4().hex}")
    browser.until(f"{STATE} === 'ready'")
    browser.value("document.querySelector('#prompt').focus()")
    return browser


def check_whole(tab: Tab, demo: Demo) -> None:
    run = tab.value(RUN)
    assert tab.value(ANSWER) == demo.text(run)
    assert tab.value(CHUNKS) == [cursor for cursor, _ in demo.log(run)]
    assert tab.value("document.querySelectorAll('.note.fault').length") == 0


def test_reload_kill_9_and_start_again_go_on_by_themselves(tab: Tab, demo: Demo) -> None:
    """The page, and a native EventSource of which nobody takes care."""
    tab.type("Tell me about rivers")
    tab.until(f"{CHUNKS}.length > 5")
    tab.reload()
    tab.until(f"{STATE} === 'live' && {CHUNKS}.length > 20")
    run = tab.value(RUN)
    tab.value(f"""void (ids = [], source = new EventSource("/runs/{run}/events?named=0"), source.onmessage = event => {{
        ids.push(event.lastEventId)
        if (JSON.parse(event.data).type === "complete") source.close()
    }})""")
    tab.until("ids.length > 20")
    demo.kill()
    tab.until(f"{STATE} === 'waiting' && source.readyState === EventSource.CONNECTING")
    demo.start()
    tab.until(f"{STATE} === 'completed' && source.readyState === EventSource.CLOSED")
    check_whole(tab, demo)
    assert tab.value("ids") == [cursor for cursor, _ in demo.log(run)]


def test_stop_stops(tab: Tab, demo: Demo) -> None:
    tab.type("Tell me about bread")
    tab.until(f"{CHUNKS}.length > 5")
    tab.value("document.querySelector('#stop').click()")
    tab.until(f"{STATE} === 'cancelled'")
    check_whole(tab, demo)

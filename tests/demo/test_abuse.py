"""What the page must bear: nasty and endless answers, stores that vanish, tabs that close, storage that is full."""

from __future__ import annotations

import re
import urllib.request
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.chromium import needs_chromium

from .kit import Demo
from .model import ENDLESS, Model
from .reader import LONGEST, Reader, answer, ask, check_whole, end, reading, run_of, status, wait_chunks, wait_other

pytestmark = needs_chromium

NASTY = (
    '<script>pwned=1</script><img src=x onerror="pwned=1"><svg onload=pwned=1><a href="javascript:pwned=1">a</a>\n'
    "</div></article><iframe srcdoc='<script>parent.pwned=1</script>'></iframe>{{7*7}} ${1} &lt; \u202e\u0000\ud7ff"
)


def forgive(reader: Reader, *words: str) -> None:
    """A run that is gone is a 404, which Chromium complains of."""
    heard = reader.complaints.heard
    heard[:] = [said for said in heard if not any(word in said for word in words)]


# --- what is said ----------------------------------------------------------------------------------------------------


def test_markup_stays_text_wherever_it_is_shown(browser: Browser, scripted: Demo, model: Model) -> None:
    model.answers[NASTY] = [NASTY[i : i + 7] for i in range(0, len(NASTY), 7)]
    scripted.begin("chat", {"messages": [{"role": "user", "content": NASTY}]}, key="nasty")
    with reading(browser, scripted) as reader:
        page = reader.tab("nasty")
        expect(status(page)).to_contain_text("Complete")
        check_whole(page, scripted)
        assert answer(page).text_content() == NASTY
        assert page.locator("#turns, #list, #rows").locator("img, script, svg, a, iframe").count() == 0
        assert page.evaluate("typeof pwned") == "undefined"


def test_a_megabyte_is_shown_whole_within_seconds(browser: Browser, scripted: Demo, model: Model) -> None:
    """And the conversation can go on: a question carries only as much of it as a run's input has room for."""
    model.answers["long"] = [f"wörd{i} " * 4 + "\n" * (i % 97 == 0) for i in range(25_000)]
    with reading(browser, scripted) as reader:
        page = reader.tab()
        ask(page, "long")
        expect(status(page)).to_contain_text("Complete", timeout=60_000)
        said = answer(page).text_content() or ""
        assert said == "".join(model.answers["long"])
        assert len(said) > 900_000
        expect(page.locator("#said")).to_have_text("A long answer has ended.")
        ask(page, "And then?")
        expect(page.locator(".question")).to_have_count(2)
        expect(status(page)).to_contain_text("All 3 chunks")
        assert model.asked[-1] == [{"role": "user", "content": "And then?"}]
        page.reload()
        expect(status(page)).to_contain_text("All 3 chunks")
        assert page.locator(".answer .words").first.text_content() == said


def test_a_long_text_is_laid_out_in_blocks_that_end_with_lines(reader: Reader) -> None:
    """Joined, they are the text; a browser shows them as it shows the text."""
    page = reader.tab()
    found = page.evaluate("""async () => {
        const { Words } = await import("/page/words.js")
        const cut = (pieces) => {
            const words = new Words()
            let text = ""
            for (const piece of pieces) words.show(text += piece)
            const blocks = [...words.node.children].map((block) => block.textContent)
            return [blocks.join("") === text, blocks.map((block) => block.length), blocks.map((block) => block.at(-1))]
        }
        const lines = "x".repeat(2999) + "\\n"
        const taken = new Words()
        taken.show("a".repeat(50_000))
        taken.show("other")
        const threads = "🧵".repeat(10_001)
        return [cut(["short\\n", "", "text"]), cut([lines + lines, lines + lines + "end"]),
            cut(["y".repeat(20_001) + "\\n"]), cut([("z".repeat(8999) + " ").repeat(3)]), cut([threads]),
            cut(["a" + threads]), [taken.node.childElementCount, taken.node.textContent]]
    }""")
    assert found == [
        [True, [10], ["t"]],
        [True, [6000, 6000, 3], ["\n", "\n", "d"]],
        [True, [20_000, 2], ["y", "\n"]],
        [True, [18_000, 9000], [" ", " "]],
        [True, [20_000, 2], ["\uddf5", "\uddf5"]],
        [True, [20_001, 2], ["\uddf5", "\uddf5"]],
        [1, "other"],
    ]


@pytest.mark.parametrize(
    ("content", "shown"),
    [([{"type": "text", "text": "In "}, {"type": "text", "text": "parts"}], "In parts"), (None, ""), ("Text", "Text")],
)
def test_messages_of_other_shapes_are_shown(reader: Reader, content: Any, shown: str) -> None:
    """As OpenAI's clients send them."""
    reader.demo.begin("chat", {"messages": [{"role": "user", "content": content}]}, key=reader.key)
    page = reader.tab()
    expect(page.locator(".question p")).to_have_text([shown])
    expect(page.locator("#list [aria-current]")).to_contain_text(shown or "…")
    end_or_failed(page)


def end_or_failed(page: Page) -> None:
    page.keyboard.press("Escape")
    expect(status(page)).to_have_text(re.compile("Stopped|Complete|Failed"))


def test_a_question_carries_what_has_room(reader: Reader) -> None:
    found = reader.tab().evaluate("""async () => {
        const { messagesFor, silent } = await import("/page/fold.js")
        const asked = (content) => (content === null ? [] : [{ role: "user", content }])
        const turn = (prompt, text) => ({ messages: asked(prompt), tries: [text] })
        const answerOf = (text) => ({ ...silent(), pieces: [{ seq: 1, text }] })
        const of = (...turns) => messagesFor(turns, answerOf, "?").map(({ content }) => content.slice(0, 3))
        const long = "l".repeat(100_000)
        const many = Array.from({ length: 25 }, (_, i) => turn(`q${i}`, "a"))
        return [of(turn("a", "A"), turn("b", ""), turn(null, "C")),
            of(turn("a", "A"), turn("b", long), turn("c", long)), of(...many)]
    }""")
    assert found[0] == ["a", "A", "?"]
    assert found[1] == ["c", "lll", "?"]
    assert [words for words in found[2] if words != "a"] == [*(f"q{i}" for i in range(5, 25)), "?"]


# --- what vanishes ---------------------------------------------------------------------------------------------------


def test_a_run_whose_store_was_deleted_is_gone_and_blocks_nothing(browser: Browser, mortal_scripted: Demo) -> None:
    with reading(browser, mortal_scripted) as reader:
        page, other = reader.tab(), reader.tab()
        ask(page, "Tell me about salt")
        wait_chunks(page, 3)
        end(page)
        first = run_of(page)
        ask(page, ENDLESS)
        for tab in (page, other):
            wait_other(tab, first, 10)
        second = run_of(page)
        seen = answer(page).text_content() or ""
        mortal_scripted.kill()
        mortal_scripted.forget()
        mortal_scripted.start()
        for tab in (page, other):
            expect(status(tab)).to_contain_text("Gone")
            expect(tab.locator("#list li")).to_have_count(0)
            expect(tab.locator(".fact")).to_contain_text(["Gone", "Gone"])
        assert (answer(page).text_content() or "").startswith(seen)
        page.get_by_role("button", name="Try again").click()
        for tab in (page, other):
            wait_other(tab, second, 5)
        end(page)
        check_whole(page, mortal_scripted)
        expect(page.locator("#list li")).to_have_count(1)
        forgive(reader, "404")


def test_a_stop_while_the_server_is_away_is_kept_until_it_is_back(browser: Browser, mortal_scripted: Demo) -> None:
    with reading(browser, mortal_scripted) as reader:
        page = reader.tab()
        ask(page, ENDLESS)
        wait_chunks(page, 5)
        mortal_scripted.kill()
        expect(status(page)).to_contain_text("Resuming")
        page.keyboard.press("Escape")
        expect(status(page)).to_contain_text("Stopping The server does not answer.")
        expect(page.locator("#stop")).to_be_disabled()
        mortal_scripted.start()
        expect(status(page)).to_contain_text("Stopped")
        check_whole(page, mortal_scripted)
        assert mortal_scripted.ask(f"runs/{run_of(page)}")["state"] == "cancelled"


def test_a_question_that_was_withdrawn_stays_withdrawn_over_a_reload(browser: Browser, mortal: Demo) -> None:
    """Also if it is another tab that gets it there."""
    with reading(browser, mortal) as reader:
        page = reader.tab()
        page.route("**/runs", away)
        ask(page, "Tell me about rivers")
        expect(status(page)).to_contain_text("Cut off")
        page.keyboard.press("Escape")
        expect(status(page)).to_contain_text("Stopping")
        page.reload()
        expect(page.locator(".question p")).to_have_text("Tell me about rivers")
        expect(status(page)).to_contain_text("Stopping")
        expect(page.locator("#stop")).to_be_disabled()
        other = reader.tab()
        expect(other.locator(".fact")).to_contain_text("Stopped")
        page.unroute("**/runs")
        expect(page.locator(".fact")).to_contain_text("Stopped")
        (run,) = mortal.runs(reader.key)
        assert run["state"] == "cancelled"


def away(route: Route) -> None:
    if route.request.method == "POST":
        route.abort("connectionrefused")
    else:
        route.continue_()


def test_a_question_whose_tab_was_closed_is_sent_by_another(browser: Browser, mortal: Demo) -> None:
    with reading(browser, mortal) as reader:
        page, other = reader.tab(), reader.tab()
        mortal.kill()
        ask(page, "Tell me about rivers")
        expect(status(other)).to_contain_text("Your message is kept")
        page.close()
        mortal.start()
        wait_chunks(other, 3)
        end(other)
        check_whole(other, mortal)
        assert len(mortal.runs(reader.key)) == 1


def test_two_tabs_that_ask_at_the_same_moment_are_both_answered(browser: Browser, scripted: Demo) -> None:
    with reading(browser, scripted) as reader:
        tabs = {name: reader.tab() for name in ("one", "two")}
        for name, tab in tabs.items():
            tab.get_by_label("Your message").fill(name)
        for tab in tabs.values():
            tab.evaluate("setTimeout(() => document.querySelector('#send').click(), 500 - Date.now() % 500)")
        for tab in tabs.values():
            expect(tab.locator(".turn")).to_have_count(2)
            expect(tab.locator(".fact")).to_contain_text(["Complete", "Complete"])
            assert sorted(tab.locator(".question p").all_text_contents()) == ["one", "two"]
        assert len(scripted.runs(reader.key)) == 2


def test_a_run_that_ends_while_it_is_being_stopped_is_no_failure(browser: Browser, scripted: Demo) -> None:
    with reading(browser, scripted) as reader:
        page = reader.tab()
        ask(page, ENDLESS)
        wait_chunks(page, 3)

        def late(route: Route) -> None:
            urllib.request.urlopen(urllib.request.Request(route.request.url, b"", method="POST"), timeout=10).close()
            assert scripted.ask(f"runs/{run_of(page)}/chunks?wait=10")["chunks"]
            route.continue_()

        page.route("**/cancel", late)
        page.keyboard.press("Escape")
        expect(status(page)).to_contain_text("Stopped")
        check_whole(page, scripted)


# --- what the browser keeps ------------------------------------------------------------------------------------------


def test_full_cleared_or_spoilt_storage_stops_nothing(browser: Browser, scripted: Demo) -> None:
    with reading(browser, scripted) as reader:
        page = reader.tab()
        page.evaluate("""() => {
            for (let size = 100_000, n = 0; size >= 1; ) {
                try { localStorage.setItem(`full${n++}`, "x".repeat(size)) } catch { size = Math.floor(size / 10) }
            }
        }""")
        for _ in range(2):
            page.get_by_role("button", name="Events").first.click()
        expect(page.get_by_role("complementary")).to_be_visible()
        ask(page, "No room")
        expect(status(page)).to_contain_text("no room to keep your message")
        page.evaluate("localStorage.clear()")
        page.keyboard.press("Enter")
        expect(status(page)).to_contain_text("Complete")
        for junk in ("{nope", "3", "null", '{"name": "x"}', '{"name": "x", "body": {"input": {"messages": 1}}}'):
            page.evaluate("junk => localStorage.setItem(`loom.unsent.${location.hash.slice(2)}`, junk)", junk)
            page.reload()
            expect(status(page)).to_contain_text("Complete")
        ask(page, "Go on")
        expect(status(page)).to_contain_text("Complete")
        expect(page.locator(".turn")).to_have_count(2)


def test_where_pages_may_keep_nothing_it_works_for_as_long_as_it_is_open(browser: Browser, scripted: Demo) -> None:
    """As in a Chromium whose user forbids sites to store data, where the property itself raises."""
    with reading(browser, scripted) as reader:
        reader.context.add_init_script("""Object.defineProperty(globalThis, "localStorage", {
            get() { throw new DOMException("Access is denied for this document.", "SecurityError") } })""")
        page = reader.tab()
        ask(page, "Keep nothing")
        expect(status(page)).to_contain_text("Complete")
        page.get_by_role("button", name="Events").first.click()
        expect(page.get_by_role("complementary")).to_be_hidden()


# --- many of everything ----------------------------------------------------------------------------------------------


def test_fifty_conversations_on_the_smallest_screen(browser: Browser, scripted: Demo) -> None:
    for i in range(50):
        scripted.begin("chat", {"messages": [{"role": "user", "content": f"Question {i:02}"}]}, key=f"many{i:02}")
    with reading(browser, scripted) as reader:
        page = reader.tab("many07")
        page.set_viewport_size({"width": 320, "height": 568})
        expect(page.locator(".question p")).to_have_text(["Question 07"])
        page.get_by_role("button", name="Conversations").click()
        expect(page.locator("#list li").filter(has_text="Question")).to_have_count(50)
        page.get_by_role("button", name="Question 00").click()
        expect(page.locator(".question p")).to_have_text(["Question 00"])
        page.go_back()
        expect(page.locator(".question p")).to_have_text(["Question 07"])
        page.go_forward()
        expect(page.locator(".question p")).to_have_text(["Question 00"])
        expect(status(page)).to_contain_text("Complete")
        check_whole(page, scripted)
        check_nothing_is_too_wide(page)


def check_nothing_is_too_wide(page: Page) -> None:
    """In whatever font, narrow or wide: with the text spacing of WCAG 2.2's 1.4.12 too."""
    fits = "document.documentElement.scrollWidth <= innerWidth"
    assert page.evaluate(fits)
    page.evaluate("""document.styleSheets[0].insertRule(
        "* { letter-spacing: .12em !important; word-spacing: .16em !important }")""")
    assert page.evaluate(fits)


def test_reload_at_every_moment_loses_nothing(reader: Reader) -> None:
    page = reader.tab()
    ask(page, LONGEST)
    for seen in range(1, 60, 6):
        page.reload()
        wait_chunks(page, seen)
    end(page)
    check_whole(page, reader.demo)
    assert len(reader.demo.runs(reader.key)) == 1

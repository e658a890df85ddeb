"""The page in a real Chromium, against a real `loom demo`: whatever is done to it, it shows what the log says."""

from __future__ import annotations

import json
import re
import uuid
from contextlib import closing
from pathlib import Path

from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from playwright.sync_api import Browser, Page, Request, expect

from tests.chromium import needs_chromium

from .kit import Demo
from .model import ENDLESS
from .reader import (
    LONGEST,
    SIZES,
    Reader,
    ask,
    check_whole,
    cursors,
    end,
    notes,
    reading,
    run_of,
    status,
    wait_chunks,
    wait_other,
)

pytestmark = needs_chromium

WATCH = """() => {
    globalThis.seen = []
    const look = () => seen.push([document.querySelector(".answer .words")?.textContent.length ?? 0, performance.now()])
    const everything = { subtree: true, childList: true, characterData: true }
    new MutationObserver(look).observe(document.querySelector("#turns"), everything)
}"""
"""How long the answer was, and when, each time it changed."""


# --- a chat ----------------------------------------------------------------------------------------------------------


def test_an_answer_comes_token_by_token_and_is_what_the_log_says(reader: Reader) -> None:
    page = reader.tab()
    expect(status(page)).to_have_text(re.compile("^Ready"))
    page.evaluate(WATCH)
    ask(page, "Tell me about rivers")
    expect(status(page)).to_contain_text("Live")
    expect(status(page)).to_contain_text("Complete")
    seen = page.evaluate("seen")
    lengths = [length for length, _ in seen]
    assert lengths == sorted(lengths)
    assert len(set(lengths)) > 10  # as it came, in many pieces, and not all at once: it takes 3.6 s to be written
    assert seen[-1][1] - seen[0][1] > 1000
    check_whole(page, reader.demo)
    expect(page.locator("#said")).to_have_text(reader.demo.text(run_of(page)))  # told as a whole to who listens
    (run,) = reader.demo.runs(reader.key)
    assert run["state"] == "completed"


def test_stop_really_stops_and_a_try_again_is_another_run(browser: Browser, scripted: Demo) -> None:
    with reading(browser, scripted) as reader:
        page = reader.tab()
        ask(page, ENDLESS)
        wait_chunks(page, 3)
        page.get_by_role("button", name="Stop").click()
        expect(status(page)).to_contain_text("Stopped")
        check_whole(page, scripted)
        first = run_of(page)
        assert scripted.ask(f"runs/{first}")["state"] == "cancelled"
        page.get_by_role("button", name="Try again").click()
        wait_other(page, first, 3)
        page.keyboard.press("Escape")
        expect(status(page)).to_contain_text("Stopped")
        check_whole(page, scripted)
        expect(page.locator(".turn")).to_have_count(1)
        expect(page.locator(".fact")).to_contain_text("try 2")


def test_a_question_can_be_stopped_before_it_is_a_run_by_any_tab(browser: Browser, mortal: Demo) -> None:
    with reading(browser, mortal) as reader:
        page, other = reader.tab(), reader.tab()
        mortal.kill()
        ask(page, "Tell me about rivers")
        expect(status(page)).to_contain_text("Cut off")
        expect(status(other)).to_contain_text("Cut off")
        expect(other.locator(".question p")).to_have_text("Tell me about rivers")
        other.keyboard.press("Escape")
        expect(status(other)).to_contain_text("Stopping")
        mortal.start()
        expect(status(page)).to_contain_text("Stopped")
        expect(status(other)).to_contain_text("Stopped")
        (run,) = mortal.runs(reader.key)
        assert run["state"] == "cancelled"


def test_the_model_is_told_what_was_said_before(reader: Reader) -> None:
    page = reader.tab()
    run = ""
    for prompt in ("Tell me about the sea", "And bread?"):
        ask(page, prompt)
        wait_other(page, run, 5)
        run = run_of(page)
        end(page)
    last, first = (reader.demo.ask(f"runs/{run['id']}") for run in reader.demo.runs(reader.key))
    assert [message["content"] for message in last["input"]["messages"]] == [
        "Tell me about the sea",
        reader.demo.text(first["id"]),
        "And bread?",
    ]


def test_reload_in_mid_answer_goes_on_and_a_second_tab_sees_the_same(reader: Reader) -> None:
    page, other = reader.tab(), reader.tab()
    ask(page, LONGEST)
    wait_chunks(page, 5)
    page.reload()
    expect(status(page)).to_contain_text("Live")
    wait_chunks(other, 10)
    for tab in (other, page):
        end(tab)
        check_whole(tab, reader.demo)
    first = run_of(page)
    ask(other, "And gardens?")
    wait_other(page, first, 5)
    expect(page.locator(".question").last).to_contain_text("And gardens?")
    for tab in (page, other):
        end(tab)
        check_whole(tab, reader.demo)


def test_conversations_are_kept_where_every_browser_sees_them(reader: Reader, browser: Browser) -> None:
    page = reader.tab()
    prompts = [f"Tell me about cats {uuid.uuid4().hex}", f"Tell me about trains {uuid.uuid4().hex}"]
    for prompt in prompts:
        ask(page, prompt)
        wait_chunks(page, 5)
        end(page)
        page.get_by_role("button", name="New conversation").click()
        expect(page.locator(".turn")).to_have_count(0)
    with reading(browser, reader.demo) as stranger:
        elsewhere = stranger.tab()
        conversations = elsewhere.get_by_role("navigation", name="Conversations")
        for prompt in prompts:
            conversations.get_by_role("button", name=prompt).click()
            expect(elsewhere.locator(".question p")).to_have_text([prompt])
            end(elsewhere)
            check_whole(elsewhere, reader.demo)
        elsewhere.go_back()
        expect(elsewhere.locator(".question p")).to_have_text([prompts[0]])


def test_what_is_said_is_never_read_as_html(reader: Reader) -> None:
    page = reader.tab()
    prompt = "<img src=x onerror=alert(1)> about rivers"
    ask(page, prompt)
    wait_chunks(page, 3)
    expect(page.locator(".question p")).to_have_text(prompt)
    assert page.locator(".turn img").count() == 0
    end(page)


def test_a_run_that_fails_says_why_and_can_be_tried_again(reader: Reader) -> None:
    """Here one that somebody else started in this conversation."""
    asked = [{"content": "by nobody"}, {"role": "user", "content": "Anybody there?"}]
    reader.demo.begin("chat", {"messages": asked}, key=reader.key)
    page = reader.tab()
    expect(page.locator(".question p")).to_have_text("Anybody there?")
    expect(status(page)).to_contain_text("Failed")
    expect(status(page)).to_contain_text("messages[0].role")
    expect(page.locator(".fact")).to_contain_text("Failed: ")
    expect(page.get_by_role("button", name="Try again")).to_be_visible()


def test_what_an_attempt_takes_back_is_taken_back(reader: Reader) -> None:
    page = reader.tab()
    folded = page.evaluate("""async () => {
        const { silent, take, textOf } = await import("/page/fold.js")
        const start = (attempt, kept_through) => ({ type: "start", data: { attempt, kept_through } })
        const said = [start(1, 0), { type: "data", data: "a" }, { type: "data", data: "b" }, start(2, 2),
            { type: "progress", progress: {} }, { type: "data", data: { c: 1 } }]
        const answer = silent()
        const texts = said.map((chunk, i) => { take(answer, `1-${i + 1}`, chunk); return textOf(answer) })
        return [texts, answer.attempt]
    }""")
    assert folded == [["", "a", "ab", "a", "a", 'a{"c":1}'], 2]


def test_the_page_takes_back_what_the_fold_does(reader: Reader) -> None:
    """The twin of `loom.model.retraction`, on the same table."""
    cases = json.loads((Path(__file__).parents[1] / "model" / "restarts.json").read_text())
    found = reader.tab().evaluate(
        """async (cases) => {
        const { covers, noSteps, retractionOf } = await import("/page/restarts.js")
        return cases.map(({ chunks }) => {
            const steps = noSteps()
            let kept = []
            chunks.forEach(([type, source, data], place) => {
                const [seq, chunk] = [place + 1, { type, source, data }]
                const gone = retractionOf(steps, seq, chunk)
                if (gone) kept = kept.filter((each) => !covers(gone, each.seq, each.source))
                if (!["start", "complete", "error"].includes(type)) kept.push({ seq, source })
            })
            return kept.map(({ seq }) => seq)
        })
    }""",
        cases,
    )
    assert found == [case["standing"] for case in cases]


def test_runs_that_were_asked_the_same_are_tries_at_one_answer(reader: Reader) -> None:
    page = reader.tab()
    found = page.evaluate("""async () => {
        const { conversations, turns } = await import("/page/fold.js")
        const asked = { r1: ["a"], r2: ["a"], r3: ["a", "b"], r4: ["a", "c"] }
        const run = (id) => ({ id, key: "k" })
        const runs = [run("r1"), { id: "x" }, run("r2"), run("r3"), run("r4")]
        const messages = (run) => asked[run].map((content) => ({ role: "user", content }))
        const all = conversations(runs)
        return [all.map(({ key }) => key), turns(all[0].runs, messages).map(({ prompt, tries }) => [prompt, tries])]
    }""")
    assert found == [["k", "x"], [["a", ["r1", "r2"]], ["b", ["r3"]], ["c", ["r4"]]]]


# --- what is done to it ----------------------------------------------------------------------------------------------


def test_kill_9_and_start_again_goes_on_by_itself(browser: Browser, mortal: Demo) -> None:
    asked: list[Request] = []
    with reading(browser, mortal) as reader:
        page = reader.tab()
        page.on("request", lambda request: asked.append(request) if "/events" in request.url else None)
        ask(page, LONGEST)
        wait_chunks(page, 10)
        mortal.kill()
        expect(status(page)).to_contain_text("Resuming")
        seen = cursors(page)
        mortal.start()
        expect(status(page)).to_contain_text("Complete")
        check_whole(page, mortal)
        log = mortal.log(run_of(page))
        assert [chunk["data"]["attempt"] for _, chunk in log if chunk["type"] == "start"] == [1, 2]
        assert f"The browser asks again, with Last-Event-ID: {seen[-1]}" in notes(page)
        assert "Connection lost behind chunk" in " ".join(notes(page))
        assert asked[-1].all_headers()["last-event-id"] == seen[-1]
        assert {request.url for request in asked} == {asked[0].url}  # the browser's own doing: nothing was reopened
        expect(page.locator("#kill")).to_have_text(f"kill -9 {mortal.ask('facts.json')['process']}")


def test_ctrl_c_hands_over_and_the_next_one_goes_on(browser: Browser, mortal: Demo) -> None:
    with reading(browser, mortal) as reader:
        page = reader.tab()
        ask(page, LONGEST)
        wait_chunks(page, 5)
        assert mortal.stop() == 0
        expect(status(page)).to_contain_text("Resuming")
        before = len(cursors(page))
        mortal.start()
        wait_chunks(page, before + 5)
        end(page)
        check_whole(page, mortal)


def test_a_question_asked_while_the_server_is_away_is_asked_once_it_is_back(browser: Browser, mortal: Demo) -> None:
    with reading(browser, mortal) as reader:
        page = reader.tab()
        mortal.kill()
        ask(page, "Tell me about birds")
        expect(status(page)).to_contain_text("Cut off")
        expect(page.locator(".question p")).to_have_text("Tell me about birds")
        mortal.start()
        wait_chunks(page, 5)
        page.reload()
        end(page)
        check_whole(page, mortal)
        assert len(mortal.runs(reader.key)) == 1


def test_an_idle_page_says_that_the_server_is_away_and_back(browser: Browser, mortal: Demo) -> None:
    with reading(browser, mortal) as reader:
        page = reader.tab()
        mortal.kill()
        expect(status(page)).to_contain_text("Cut off")
        mortal.start()
        expect(status(page)).to_contain_text("Ready")


def test_a_connection_that_is_cut_is_taken_up_behind_its_cursor(reader: Reader) -> None:
    page = reader.tab()
    ask(page, LONGEST)
    wait_chunks(page, 5)
    page.get_by_role("button", name="Cut the connection").click()
    expect(status(page)).to_contain_text("Cut off")
    seen = cursors(page)
    page.get_by_role("button", name="Connect again").click()
    wait_chunks(page, len(seen) + 10)
    end(page)
    check_whole(page, reader.demo)
    assert any(note.endswith(f"/events?named=0&after={seen[-1]}") for note in notes(page))


# --- for everybody ---------------------------------------------------------------------------------------------------


def test_everything_is_done_with_the_keyboard(browser: Browser, demo: Demo) -> None:
    with reading(browser, demo, "narrow") as reader:
        page = reader.tab()
        page.get_by_role("link", name="Skip to the message box").focus()
        page.keyboard.press("Enter")
        expect(page.get_by_label("Your message")).to_be_focused()
        page.keyboard.type("Tell me about")
        page.keyboard.press("Shift+Enter")
        page.keyboard.type("clocks")
        page.keyboard.press("Enter")
        wait_chunks(page, 5)
        end(page)
        page.get_by_role("button", name="Events").first.focus()
        page.keyboard.press("Enter")
        expect(page.get_by_role("complementary")).to_be_visible()
        expect(page.get_by_role("button", name="Close")).to_be_focused()
        page.keyboard.press("Escape")
        expect(page.get_by_role("complementary")).to_be_hidden()
        expect(page.get_by_role("button", name="Events").first).to_be_focused()
        page.get_by_role("button", name="Conversations").focus()
        page.keyboard.press("Enter")
        expect(page.get_by_role("button", name="New conversation")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.get_by_label("Your message")).to_be_focused()
        expect(page.locator("#welcome")).to_be_visible()


def test_axe_finds_nothing(browser: Browser, demo: Demo) -> None:
    """WCAG 2.2 AA as far as a program can tell, contrast included; axe's own script needs the policy out of its way."""
    with closing(browser.new_context(reduced_motion="reduce", bypass_csp=True)) as context:
        page = context.new_page()
        page.goto(f"{demo.url}/#/{uuid.uuid4().hex}")
        expect(page.locator("#welcome")).to_be_visible()
        check_axe_everywhere(page)
        ask(page, "Tell me about the night sky")
        wait_chunks(page, 5)
        end(page)
        check_axe_everywhere(page)
        page.get_by_role("button", name="Events").first.click()
        check_axe(page)


def check_axe_everywhere(page: Page) -> None:
    """In both colour schemes, wide and narrow; and nothing is wider than its window."""
    for width, height in SIZES.values():
        page.set_viewport_size({"width": width, "height": height})
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
            check_axe(page)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def check_axe(page: Page) -> None:
    found = Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa", "best-practice"]})
    assert found.violations_count == 0, found.generate_report()


def test_with_reduced_motion_nothing_moves(reader: Reader) -> None:
    page = reader.tab()
    ask(page, "Tell me about snow")
    wait_chunks(page, 5)
    assert page.evaluate("document.getAnimations().length") > 0
    page.emulate_media(reduced_motion="reduce")
    assert page.evaluate("document.getAnimations().length") == 0
    end(page)


def test_a_message_the_browser_cannot_keep_is_given_back(reader: Reader) -> None:
    page = reader.tab()
    page.get_by_label("Your message").evaluate("(box) => { box.value = 'x'.repeat(6_000_000) }")
    page.get_by_role("button", name="Send").click()
    expect(status(page)).to_contain_text("no room to keep your message")
    assert page.get_by_label("Your message").evaluate("(box) => box.value.length") == 6_000_000
    ask(page, "hi")
    expect(status(page)).to_have_text(re.compile("Complete"), timeout=20_000)

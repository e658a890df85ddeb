/** The conversation on the page. Nodes are kept and changed, so that reading, selecting and focus are not disturbed. */

import { $, el } from "./dom.js";
import { ended, textOf } from "./fold.js";
import { told } from "./status.js";
import { Words } from "./words.js";

class TurnView {
  constructor(turn, { retry, trace }) {
    this.words = new Words();
    this.fact = el("span", { className: "fact" });
    this.retry = el("button", { className: "quiet retry", type: "button", textContent: "Try again", hidden: true });
    this.retry.addEventListener("click", () => retry(this.turn));
    this.events = el("button", { className: "quiet", type: "button", textContent: "Events" });
    this.events.addEventListener("click", () => trace(this.turn.tries.at(-1)));
    this.answer = el("div", { className: "answer" }, el("h2", { className: "unseen", textContent: "Answer" }), this.words.node,
      el("p", { className: "facts" }, this.fact, " ", this.events, " ", this.retry));
    this.node = el("article", { className: "turn" },
      el("div", { className: "question" }, el("h2", { className: "unseen", textContent: "You" }), el("p", { textContent: turn.prompt })),
      this.answer);
  }

  /** `last`: only the last answer may be tried again, or what follows would answer another. */
  show(turn, answer, doing, last) {
    this.turn = turn;
    this.answer.dataset.state = answer.state;
    this.answer.setAttribute("aria-busy", String(!ended(answer.state)));
    this.words.show(textOf(answer));
    this.words.node.classList.toggle("live", !ended(answer.state));
    this.fact.textContent = factsOf(answer, turn.tries.length, doing);
    this.events.hidden = !turn.tries.length;
    this.retry.hidden = !last || !["cancelled", "failed", "lost", "gone"].includes(answer.state);
  }
}

function factsOf(answer, tries, doing) {
  const facts = [ended(answer.state) ? told(answer.state)[1] : doing];
  if (answer.error && answer.state === "failed") facts[0] = `Failed: ${answer.error.message}`;
  if (answer.seq) facts.push(`${answer.seq} chunks`);
  if (answer.began && answer.ended) facts.push(`${(answer.ended - answer.began).toFixed(1)} s`);
  if (answer.attempt > 1) facts.push(`${answer.attempt} attempts`);
  if (tries > 1) facts.push(`try ${tries}`);
  return facts.filter(Boolean).join(" · ");
}

export class Turns {
  #views = new Map();
  #scroll = $("#scroll");
  #latest = $("#latest");
  #actions;

  /** `actions`: `retry(turn)`, and `trace(run)`, which shows its events. */
  constructor(actions) {
    this.#actions = actions;
    this.#latest.addEventListener("click", () => this.toLatest());
    this.#scroll.addEventListener("scroll", () => this.#offerLatest(), { passive: true });
  }

  clear() {
    this.#views.clear();
    $("#turns").replaceChildren();
  }

  /** `turns` as `fold.turns` gives them; `doing`: what the answer in progress is about. */
  show(turns, answerOf, doing) {
    const follow = this.#atEnd();
    const wanted = new Set(turns.map((turn) => turn.id));
    for (const [id, view] of this.#views) if (!wanted.has(id)) this.#remove(id, view);
    for (const turn of turns) this.#viewOf(turn).show(turn, answerOf(turn.tries.at(-1)), doing, turn === turns.at(-1));
    if (follow) this.toLatest();
    else this.#offerLatest();
  }

  #viewOf(turn) {
    let view = this.#views.get(turn.id);
    if (!view) {
      view = new TurnView(turn, this.#actions);
      this.#views.set(turn.id, view);
      $("#turns").append(view.node);
    }
    return view;
  }

  #remove(id, view) {
    view.node.remove();
    this.#views.delete(id);
  }

  #atEnd() {
    return this.#scroll.scrollHeight - this.#scroll.scrollTop - this.#scroll.clientHeight < 60;
  }

  #offerLatest() {
    this.#latest.hidden = this.#atEnd();
  }

  toLatest() {
    this.#scroll.scrollTop = this.#scroll.scrollHeight;
    this.#latest.hidden = true;
  }
}

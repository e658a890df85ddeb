/** The panel of raw events: every chunk with its cursor as it arrived, and what became of the connection in between. */

import { $, el } from "./dom.js";
import { seqOf } from "./fold.js";

const KEPT = 600; // rows; a page shall not grow without end
const WORDS = 400; // characters of one chunk's JSON

export class Trace {
  #list = $("#rows ol");
  #box = $("#rows");
  #logs = new Map();
  #shown = null;

  /** Show a run's rows; null: nothing. */
  show(run) {
    if (run === this.#shown) return;
    this.#shown = run;
    $("#trace-run").textContent = run ? `run ${run}` : "No run yet.";
    const log = this.#logOf(run);
    this.#list.replaceChildren();
    log.undrawn = log.rows.length;
    this.#draw(log);
    this.#box.scrollTop = this.#box.scrollHeight;
  }

  /** Show what has come. Once a frame: thousands may come within one. */
  draw() {
    const log = this.#logOf(this.#shown);
    if (!log.undrawn) return;
    const follow = this.#box.scrollHeight - this.#box.scrollTop - this.#box.clientHeight < 40;
    this.#draw(log);
    if (follow) this.#box.scrollTop = this.#box.scrollHeight;
  }

  /** Show a run's if nothing is shown yet. */
  begin(run) {
    if (run && !this.#shown) this.show(run);
  }

  chunk(run, cursor, chunk) {
    this.#add(run, { kind: "chunk", cursor, chunk });
  }

  /** `kind`: request, open, lost or fault. */
  note(run, kind, text) {
    this.#add(run, { kind, text });
  }

  #logOf(run) {
    if (!this.#logs.has(run)) this.#logs.set(run, { rows: [], dropped: 0, undrawn: 0 });
    return this.#logs.get(run);
  }

  #add(run, row) {
    const log = this.#logOf(run);
    log.rows.push(row);
    if (log.rows.length > KEPT) {
      log.rows.shift();
      log.dropped += 1;
    }
    log.undrawn = Math.min(log.undrawn + 1, KEPT);
  }

  #draw(log) {
    this.#list.append(...log.rows.slice(log.rows.length - log.undrawn).map(drawn));
    log.undrawn = 0;
    while (this.#list.childElementCount > KEPT) this.#list.firstElementChild.remove();
    this.#tellDropped(log);
  }

  #tellDropped({ dropped }) {
    $("#dropped").hidden = !dropped;
    $("#dropped").textContent = `${dropped} earlier rows are no longer shown here; the log has them.`;
  }
}

function drawn(row) {
  if (row.kind !== "chunk") return el("li", { className: `note ${row.kind}`, textContent: row.text });
  const { type, time, ...rest } = row.chunk;
  const dash = row.cursor.length - String(seqOf(row.cursor)).length;
  return el("li", { className: "chunk", dataset: { cursor: row.cursor, type } },
    el("span", { className: "cursor" }, el("span", { className: "epoch", textContent: row.cursor.slice(0, dash) }), row.cursor.slice(dash)), " ",
    el("span", { className: "type", textContent: type }), " ",
    el("code", { textContent: shortened(rest) }));
}

function shortened(rest) {
  const only = Object.keys(rest).length === 1 ? Object.values(rest)[0] : rest;
  const text = Object.keys(rest).length ? JSON.stringify(only) : "";
  return text.length > WORDS ? `${text.slice(0, WORDS)}…` : text;
}

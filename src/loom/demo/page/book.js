/** What this page knows of the server's runs: their list, what each was given, and what each said. */

import * as api from "./api.js";
import { conversations, ended, silent, take, turns, wordsOf } from "./fold.js";
import * as unsent from "./unsent.js";

const TITLES = 100; // conversations whose first question is fetched, to be their title

export class Book {
  #all = [];
  #messages = new Map(); // by run: what it was given
  #answers = new Map(); // by run
  #trace;

  constructor(trace) {
    this.#trace = trace;
  }

  get conversations() {
    return conversations(this.#all).filter(({ runs }) => runs.some((run) => this.stateOf(run) !== "gone"));
  }

  runsOf(key) {
    return this.#all.filter((run) => (run.key ?? run.id) === key);
  }

  /** The run of a conversation that has not ended. */
  liveIn(key) {
    return this.runsOf(key).find((run) => !ended(this.stateOf(run)))?.id ?? null;
  }

  stateOf(run) {
    return (this.#answers.get(run.id) ?? run).state;
  }

  titleOf({ runs }) {
    return wordsOf(this.#messages.get(runs[0].id)?.at(-1)) || "…";
  }

  answerOf(run) {
    return this.#answers.get(run) ?? silent();
  }

  /** The turns of a conversation, with the question that is still on its way as one more, or one more try. */
  turnsOf(key) {
    const found = turns(this.runsOf(key), (run) => this.#messages.get(run));
    const question = unsent.unsentIn(key);
    if (!question) return found;
    const [pending] = turns([{ id: "" }], () => question.body.input.messages);
    const known = found.find((turn) => turn.id === pending.id);
    return known ? found.map((turn) => (turn === known ? { ...turn, tries: [...turn.tries, ""] } : turn)) : [...found, pending];
  }

  /** A run that was just started. */
  add(run, messages) {
    this.#messages.set(run.id, messages);
    this.#merge([run]);
  }

  /** Take a chunk in. */
  hear(run, cursor, chunk) {
    this.#trace.chunk(run, cursor, chunk);
    take(this.#heard(run), cursor, chunk);
  }

  #heard(run) {
    if (!this.#answers.has(run)) this.#answers.set(run, silent());
    return this.#answers.get(run);
  }

  /** The server cannot tell more of this run, and says why. What it said can still be read here. */
  lose(run, error) {
    if (this.answerOf(run).state === "gone") return;
    this.#trace.note(run, "fault", `${error.message} (${error.code})`);
    Object.assign(this.#heard(run), { state: "gone", error });
  }

  /** Ask the server for its list, and for what is no longer in it. */
  async list(actor) {
    const known = this.#all.filter((run) => this.stateOf(run) !== "gone");
    const news = await api.runs(actor);
    this.#merge(news);
    const listed = new Set(news.map((run) => run.id));
    const reaches = news.length < api.LISTED ? 0 : news[0].created;
    await Promise.all(known.filter((run) => run.created > reaches && !listed.has(run.id)).map((run) => this.#look(run.id)));
  }

  #look(run) {
    return this.#orLose(run, () => api.run(run));
  }

  async #orLose(run, ask) {
    try {
      await ask();
    } catch (problem) {
      if (problem.code !== "not_found") throw problem;
      this.lose(run, problem);
    }
  }

  /** Newer news of runs; one may have been started while a list was on its way, so none is dropped. */
  #merge(news) {
    const known = new Map([...this.#all, ...news].map((run) => [run.id, run]));
    this.#all = [...known.values()].sort((one, other) => one.created - other.created);
  }

  /** Read a conversation's runs, but not the one that is followed. */
  read(key, followed) {
    const there = this.runsOf(key).filter((run) => this.stateOf(run) !== "gone");
    return Promise.all(there.map((run) => this.#orLose(run.id, () => this.#read(run, followed))));
  }

  readTitles() {
    const first = this.conversations.slice(0, TITLES).map(({ runs }) => runs[0].id);
    return Promise.all(first.map((run) => this.#orLose(run, () => this.#readInput(run))));
  }

  async #readInput(run) {
    if (this.#messages.has(run)) return;
    const { input } = await api.run(run);
    this.#messages.set(run, input?.messages ?? []);
  }

  /** An ended run is read from the log, page by page. */
  async #read({ id, state }, followed) {
    await this.#readInput(id);
    if (!ended(state) || ended(this.answerOf(id).state) || id === followed) return;
    this.#trace.note(id, "request", `Read from the log: GET /${api.shortened(`runs/${id}/chunks`, id)}`);
    for (let page = { ended: false }; !page.ended; ) {
      page = await api.page(id, this.answerOf(id).cursor);
      for (const { cursor, chunk } of page.chunks) this.hear(id, cursor, chunk);
    }
  }
}

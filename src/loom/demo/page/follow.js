/**
 * Follows a run with the browser's own EventSource, which resumes by itself: after a lost connection it asks again with
 * the id of the last event it saw. `?named=0` brings everything to `onmessage`; so `onerror` speaks of the connection alone.
 */

import * as api from "./api.js";
import { seqOf } from "./fold.js";

const PAUSES = [500, 1000, 2000, 4000]; // ms; for what EventSource gives up on, as a store that is out of reach (503)

export class Follower {
  #run;
  #tell;
  #source = null;
  #timer = 0;
  #failures = 0;
  #opening = 0; // which connection this is, so that what is late for an earlier one is not taken for this one's

  /** `tell`: `state(name, detail)`, `chunk(cursor, chunk)`, `note(kind, text)`, and at last perhaps `gone(error)`. `cursor`: what is known already. */
  constructor(run, cursor, tell) {
    this.#run = run;
    this.#tell = tell;
    this.cursor = cursor;
    this.state = "";
    this.#open();
  }

  /** Leave. The run does not mind. */
  close() {
    this.#opening += 1;
    this.#source?.close();
    this.#source = null;
    clearTimeout(this.#timer);
  }

  /** Lose the connection, until `again` is called. */
  cut() {
    this.close();
    this.#tell.note("lost", `You cut the connection behind ${this.#place()}. The run goes on.`);
    this.#become("cut", `You cut the connection behind ${this.#place()}. The run goes on without you.`);
  }

  again() {
    this.#open();
  }

  #place() {
    return this.cursor ? `chunk ${seqOf(this.cursor)}` : "nothing";
  }

  #become(state, detail) {
    this.state = state;
    this.#tell.state(state, detail);
  }

  #open() {
    this.close();
    const path = api.eventsPath(this.#run, this.cursor);
    this.#tell.note("request", `GET /${api.shortened(path, this.#run)}`);
    this.#become(this.cursor ? "resuming" : "connecting", this.cursor ? `Asking for what follows ${this.#place()}.` : "");
    this.#source = new EventSource(path);
    this.#source.onopen = () => this.#opened();
    this.#source.onmessage = (event) => this.#message(event);
    this.#source.onerror = () => this.#lost();
  }

  #opened() {
    this.#failures = 0;
    this.#tell.note("open", this.cursor ? `Connected again, behind ${this.#place()}.` : "Connected.");
    this.#become("live");
  }

  #message(event) {
    const chunk = JSON.parse(event.data);
    if (chunk.type === undefined) return this.#gone(chunk.error); // `!error`: the stream broke off, and this is why
    this.#checkOrder(event.lastEventId);
    this.cursor = event.lastEventId;
    if (chunk.type === "complete" || chunk.type === "error") this.close();
    this.#tell.chunk(event.lastEventId, chunk);
  }

  /** The page's own proof: chunks are numbered without a gap. */
  #checkOrder(cursor) {
    const expected = this.cursor ? seqOf(this.cursor) + 1 : 1;
    if (seqOf(cursor) !== expected) this.#tell.note("fault", `Chunk ${seqOf(cursor)} came where ${expected} was due.`);
  }

  #lost() {
    if (this.#source.readyState === EventSource.CLOSED) return void this.#refused();
    if (this.state === "waiting") return; // another try of the browser's failed
    this.#tell.note("lost", `Connection lost behind ${this.#place()}.`);
    if (this.cursor) this.#tell.note("request", `The browser asks again, with Last-Event-ID: ${this.cursor}`);
    this.#become("waiting", `Connection lost behind ${this.#place()}. The browser tries again by itself.`);
  }

  /** The browser will not try again: the server refused. Ask why, and go on if it may be asked again. */
  async #refused() {
    this.close();
    const opening = this.#opening;
    try {
      await api.page(this.#run, this.cursor, 1);
    } catch (problem) {
      if (!problem.retryable && opening === this.#opening) this.#gone(problem);
    }
    if (opening !== this.#opening) return;
    const pause = PAUSES[Math.min(this.#failures++, PAUSES.length - 1)];
    this.#become("waiting", `The server does not take us behind ${this.#place()}. It is asked again.`);
    this.#timer = setTimeout(() => this.#open(), pause);
  }

  #gone(error) {
    this.close();
    this.#tell.gone(error);
  }
}

/** What the page is doing, in words: it always says so. */

const STATES = {
  ready: ["quiet", "Ready", ""],
  sending: ["busy", "Sending", ""],
  unsent: ["warn", "Cut off", "The server does not answer. Your message is kept here and sent again."],
  away: ["warn", "Cut off", "The server does not answer. It is asked again every few seconds."],
  loading: ["busy", "Connecting", "Reading what was said."],
  connecting: ["busy", "Connecting", ""],
  queued: ["busy", "Live", "Waiting for a worker."],
  live: ["good", "Live", "Tokens arrive as they are written."],
  resuming: ["warn", "Resuming", ""],
  waiting: ["warn", "Resuming", ""],
  cut: ["warn", "Cut off", ""],
  stopping: ["busy", "Stopping", "Waiting until the run is really gone."],
  completed: ["quiet", "Complete", ""],
  cancelled: ["quiet", "Stopped", "The run is gone; what it said stays."],
  failed: ["bad", "Failed", ""],
  lost: ["bad", "Lost", "Its worker was lost too often."],
  gone: ["bad", "Gone", "The server has it no more; what it said is still here."],
};

/** A state as a person reads it: `[tone, word, detail]`. */
export function told(state, detail = "") {
  const [tone, word, usual] = STATES[state];
  return [tone, word, detail || usual];
}

export class Status {
  word = "";

  constructor(node) {
    this.node = node;
  }

  show(state, detail) {
    const [tone, word, more] = told(state, detail);
    this.word = word;
    this.node.dataset.state = state;
    this.node.dataset.tone = tone;
    set(this.node.querySelector("strong"), word);
    set(this.node.querySelector(".detail"), more);
    document.title = tone === "quiet" ? "Loom" : `${word} · Loom`;
  }
}

/** Only a change is announced, so only changes are made. */
function set(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

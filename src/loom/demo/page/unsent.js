/** Questions on their way: kept in this browser until the server has them, so that none is lost, and none sent twice. */

import * as api from "./api.js";

const PREFIX = "loom.unsent.";
const PAUSE = 1000; // ms

/** The question on its way in a conversation: `{name, body}`, or null. */
export function unsentIn(conversation) {
  return JSON.parse(localStorage.getItem(PREFIX + conversation));
}

/** The conversations that have one. */
export function unsent() {
  return Object.keys(localStorage)
    .filter((name) => name.startsWith(PREFIX))
    .map((name) => name.slice(PREFIX.length));
}

/** Raises a `Problem` if the browser has no room for it. */
export function keep(conversation, body) {
  try {
    localStorage.setItem(PREFIX + conversation, JSON.stringify({ name: crypto.randomUUID(), body }));
  } catch {
    throw new api.Problem({ code: "too_large", message: "This browser has no room to keep your message." });
  }
}

/** Forget the one of that name. */
export function forget(conversation, name) {
  if (unsentIn(conversation)?.name === name) localStorage.removeItem(PREFIX + conversation);
}

/**
 * Send it until the server has it; gives the run. `waiting` is told when the server is out of reach. Two tabs may do
 * this at a time: by its name it is one run. Raises what the server refuses, which is forgotten then.
 */
export async function deliver(conversation, { name, body }, waiting) {
  for (;;) {
    try {
      const run = await api.start(name, body);
      forget(conversation, name);
      return run;
    } catch (problem) {
      if (!problem.retryable) {
        forget(conversation, name);
        throw problem;
      }
      waiting(problem);
      await new Promise((resolve) => setTimeout(resolve, PAUSE));
    }
  }
}

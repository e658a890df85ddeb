/**
 * Questions on their way: kept in this browser until the server has them, so that none is lost, and none sent twice. One
 * that its reader withdrew is on its way all the same, for it may have arrived: it is stopped before it is forgotten.
 */

import * as api from "./api.js";
import * as shelf from "./shelf.js";

const PREFIX = "loom.unsent.";

/** The question on its way in a conversation: `{name, withdrawn, body}`, or null. */
export function unsentIn(conversation) {
  try {
    const question = JSON.parse(shelf.read(PREFIX + conversation));
    return question?.name && Array.isArray(question.body?.input?.messages) ? question : null;
  } catch {
    return null; // not of our making
  }
}

/** The conversations that have one. */
export function unsent() {
  return shelf.names()
    .filter((name) => name?.startsWith(PREFIX))
    .map((name) => name.slice(PREFIX.length))
    .filter(unsentIn);
}

const put = (conversation, question) => shelf.write(PREFIX + conversation, JSON.stringify(question));

/** Raises a `Problem` if the browser has no room for it. */
export function keep(conversation, body) {
  if (!put(conversation, { name: crypto.randomUUID(), withdrawn: false, body }))
    throw new api.Problem({ code: "too_large", message: "This browser has no room to keep your message." });
}

/** It is to be stopped as soon as it is a run, by whichever tab gets it there. */
export const withdraw = (conversation) => put(conversation, { ...unsentIn(conversation), withdrawn: true });

const isKept = (conversation, name) => unsentIn(conversation)?.name === name;

/** Forget the one of that name. */
function forget(conversation, name) {
  if (isKept(conversation, name)) shelf.remove(PREFIX + conversation);
}

/**
 * Send it until the server has it; gives the run. `waiting` is told when the server is out of reach. Two tabs may do
 * this at a time: by its name it is one run. Raises what the server refuses, which is forgotten then.
 */
export async function deliver(conversation, { name, body }, waiting) {
  try {
    const run = await api.insist(() => api.start(name, body), waiting);
    if (isKept(conversation, name) && unsentIn(conversation).withdrawn) await api.insist(() => api.cancel(run.id), waiting);
    return run;
  } finally {
    forget(conversation, name);
  }
}

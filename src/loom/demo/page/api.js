/** The server's routes, as functions. Every refusal is a `Problem`; a server out of reach is one with `away`. */

export class Problem extends Error {
  constructor({ code, message, retryable = false, away = false }) {
    super(message);
    this.code = code;
    this.retryable = retryable;
    this.away = away;
  }
}

const PATIENCE = 8000; // ms: a server that answers at all answers sooner

async function request(method, path, { body, headers = {} } = {}) {
  let answer, text;
  try {
    answer = await fetch(path, { method, headers, body, cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
    text = await answer.text();
  } catch {
    throw new Problem({ code: "away", message: "The server does not answer.", retryable: true, away: true });
  }
  if (answer.ok) return text ? JSON.parse(text) : null;
  throw new Problem(refusalIn(text, answer.status));
}

const PAUSE = 1000; // ms

/** Ask until there is an answer. `waiting` is told each time that there is none. Raises what the server refuses. */
export async function insist(ask, waiting) {
  for (;;) {
    try {
      return await ask();
    } catch (problem) {
      if (!problem.retryable) throw problem;
      waiting(problem);
      await new Promise((resolve) => setTimeout(resolve, PAUSE));
    }
  }
}

function refusalIn(text, status) {
  try {
    return JSON.parse(text).error;
  } catch {
    return { code: "unknown", message: `The server answered ${status}.`, retryable: status >= 500 };
  }
}

export const facts = () => request("GET", "facts.json");

export const LISTED = 1000; // runs

/** The newest runs of an actor, oldest first, without their inputs. */
export async function runs(actor) {
  const page = await request("GET", `runs?actor=${encodeURIComponent(actor)}&limit=${LISTED}`);
  return page.runs.reverse();
}

export const run = (id) => request("GET", `runs/${id}`);

/** Start a run. `name` is its Idempotency-Key: the same again is the same run, however often it is sent. */
export const start = (name, body) =>
  request("POST", "runs", {
    body: JSON.stringify(body),
    headers: { "Content-Type": "application/json", "Idempotency-Key": name },
  });

/** Ask for a run's end. Its last chunk confirms it. */
export const cancel = (id) => request("POST", `runs/${id}/cancel`);

/** One page of a run's chunks. */
export const page = (id, after = "", limit = 10000) => request("GET", `runs/${id}/chunks?after=${after}&limit=${limit}`);

/** A path with a run's long id cut. */
export const shortened = (path, run) => (run.length > 12 ? path.replace(run, `${run.slice(0, 8)}…`) : path);

export const eventsPath = (id, after) => `runs/${id}/events?named=0${after ? `&after=${after}` : ""}`;

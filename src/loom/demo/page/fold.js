/** From what the server says to what is shown: chunks to an answer, runs to conversations and turns. Pure. */

import { covers, noSteps, retractionOf } from "./restarts.js";

/** The number of the chunk that a cursor (`<epoch>-<seq>`) stands behind. */
export const seqOf = (cursor) => Number(cursor.slice(cursor.lastIndexOf("-") + 1));

/** A message's words: its text, or the texts among its parts. */
export function wordsOf(message) {
  const content = message?.content ?? "";
  return Array.isArray(content) ? content.map((part) => part?.text ?? "").join("") : String(content);
}

/** An answer of which nothing was heard yet. `state`: queued, running, completed, cancelled, failed, lost; gone: deleted. */
export const silent = () => ({ pieces: [], state: "queued", attempt: 0, seq: 0, cursor: "", error: null, began: 0, ended: 0, steps: noSteps() });

export const textOf = (answer) => answer.pieces.map((piece) => piece.text).join("");

const ENDS = { cancelled: "cancelled", run_lost: "lost" };

/** Take the next chunk. */
export function take(answer, cursor, chunk) {
  answer.cursor = cursor;
  answer.seq = seqOf(cursor);
  const gone = retractionOf(answer.steps, answer.seq, chunk);
  if (gone) answer.pieces = answer.pieces.filter((piece) => !covers(gone, piece.seq, piece.source));
  switch (chunk.type) {
    case "start":
      begin(answer, chunk);
      break;
    case "data":
      answer.pieces.push({ seq: answer.seq, source: chunk.source, text: typeof chunk.data === "string" ? chunk.data : JSON.stringify(chunk.data) });
      break;
    case "complete":
      Object.assign(answer, { state: "completed", ended: chunk.time });
      break;
    case "error":
      Object.assign(answer, { state: ENDS[chunk.error.code] ?? "failed", error: chunk.error, ended: chunk.time });
      break;
    default: // kinds that this page does not draw; the trace shows them all
  }
}

function begin(answer, chunk) {
  answer.attempt = chunk.data.attempt;
  answer.state = "running";
  answer.began ||= chunk.time;
}

export const ended = (state) => !["queued", "running"].includes(state);

/** Conversations, the one that was last spoken in first: the runs that share a key. */
export function conversations(runs) {
  const found = new Map();
  for (const run of runs) {
    const key = run.key ?? run.id;
    const runsOf = found.get(key)?.runs ?? [];
    found.delete(key);
    found.set(key, { key, runs: [...runsOf, run] });
  }
  return [...found.values()].reverse();
}

/** The turns of a conversation: runs that were given the same messages are tries at one answer, the last one counts. */
export function turns(runs, messagesOf) {
  const found = new Map();
  for (const run of runs) {
    const messages = messagesOf(run.id);
    if (!messages) continue;
    const id = identityOf(messages);
    const turn = found.get(id) ?? { id, messages, prompt: wordsOf(messages.at(-1)), tries: [] };
    turn.tries.push(run.id);
    found.set(id, turn);
  }
  return [...found.values()];
}

const identities = new WeakMap(); // they are asked for with each chunk, and may be long

function identityOf(messages) {
  if (!identities.has(messages)) identities.set(messages, JSON.stringify(messages.map(({ role, content }) => [role, content])));
  return identities.get(messages);
}

const REMEMBERED = 20; // turns: what a question tells the model of what was said before
const REMEMBERED_LENGTH = 128 * 1024; // characters of them: however they are encoded, a run's input of 1 MiB has room

/** What the model is given: the last turns that were answered, as far as there is room, and the question. */
export function messagesFor(turns, answerOf, prompt) {
  const said = [];
  let room = REMEMBERED_LENGTH;
  for (const turn of turns.slice(-REMEMBERED).reverse()) {
    const [asked, content] = [turn.messages.at(-1), textOf(answerOf(turn.tries.at(-1)))];
    if (!asked || !content) continue;
    room -= JSON.stringify(asked).length + content.length;
    if (room < 0) break;
    said.unshift(asked, { role: "assistant", content });
  }
  return [...said, { role: "user", content: prompt }];
}

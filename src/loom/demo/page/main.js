/**
 * The page. What it shows is what the server's log says: a conversation is the runs of one key, an answer one run's
 * chunks. This browser keeps nothing but questions that are still on their way.
 */

import * as api from "./api.js";
import { $, el } from "./dom.js";
import { conversations, ended, messagesFor, silent, take, textOf, turns } from "./fold.js";
import { Follower } from "./follow.js";
import * as panels from "./panels.js";
import { Status } from "./status.js";
import { Trace } from "./trace.js";
import { Turns } from "./turns.js";
import * as unsent from "./unsent.js";

const SUGGESTIONS = ["Tell me about rivers", "What do bees do in winter?", "A story about a clockmaker"];
const LOOK = 2000; // ms between looks at the list of runs: other browsers start some, too
const SILENCE = 1500; // ms after which a live run's silence is told

const others = new BroadcastChannel("loom"); // this page in other tabs
const status = new Status($("#state"));
const trace = new Trace();
const view = new Turns({ retry, trace: showTrace });

let facts = null;
let all = []; // every run, as listed
let current = ""; // the conversation that is shown: its runs' key
let away = true; // the server did not answer when last asked
let asked = false; // it was asked at least once
let follower = null;
let followed = null;
let stopping = null; // the run that was told to stop
const withdrawn = new Set(); // conversations whose question, still on its way, is to be stopped as soon as it is a run
let heard = 0; // when the last chunk came
let refusal = null; // why the last question was not taken
const doing = { state: "", detail: "" }; // of the follower
const messages = new Map(); // by run: what it was given
const answers = new Map(); // by run
const sending = new Map(); // by conversation: whether the server was out of reach

// --- what there is ---

const answerOf = (run) => answers.get(run) ?? silent();
const runsOf = (key) => all.filter((run) => (run.key ?? run.id) === key);

function turnsOf(key) {
  const found = turns(runsOf(key), (run) => messages.get(run));
  const question = unsent.unsentIn(key);
  if (!question) return found;
  const pending = turns([{ id: "" }], () => question.body.input.messages)[0];
  const known = found.find((turn) => turn.id === pending.id);
  return known ? found.map((turn) => (turn === known ? { ...turn, tries: [...turn.tries, ""] } : turn)) : [...found, pending];
}

const live = () => runsOf(current).find((run) => !ended((answers.get(run.id) ?? run).state));
const busy = () => Boolean(unsent.unsentIn(current) || live());

// --- looking at the server ---

let looking = null;

/** Look at the runs there are, and at those of this conversation. Calls meanwhile wait for one more look. */
function look() {
  if (looking) return (looking.again ??= looking.done.then(look));
  looking = { again: null, done: lookOnce().finally(() => (looking = null)) };
  return looking.done;
}

async function lookOnce() {
  try {
    showFacts(await api.facts()); // another process, perhaps
    all = withKnown(await api.runs(facts.actor));
    if (!current) choose(conversations(all)[0]?.key ?? crypto.randomUUID());
    await Promise.all([...runsOf(current).map(read), ...conversations(all).slice(0, 100).map(({ runs }) => readInput(runs[0].id))]);
    away = false;
  } catch (problem) {
    away = problem.retryable;
    if (!away) refusal = problem;
  }
  asked = true;
  showList();
  follow();
  trace.begin(runsOf(current).at(-1)?.id);
  show();
}

/** A run may have been started while the list was on its way. */
function withKnown(listed) {
  const ids = new Set(listed.map(({ id }) => id));
  return [...listed, ...all.filter(({ id }) => !ids.has(id))];
}

async function readInput(run) {
  if (messages.has(run)) return;
  const { input } = await api.run(run);
  messages.set(run, input?.messages ?? []);
}

/** An ended run is read from the log, page by page. */
async function read({ id, state }) {
  await readInput(id);
  if (!ended(state) || ended(answerOf(id).state) || id === followed) return;
  const answer = answers.get(id) ?? silent();
  answers.set(id, answer);
  trace.note(id, "request", `Read from the log: GET /${api.shortened(`runs/${id}/chunks`, id)}`);
  for (let page = { ended: false }; !page.ended; ) {
    page = await api.page(id, answer.cursor);
    for (const { cursor, chunk } of page.chunks) takeIn(id, answer, cursor, chunk);
  }
}

function takeIn(id, answer, cursor, chunk) {
  trace.chunk(id, cursor, chunk);
  return take(answer, cursor, chunk);
}

/** Follow the run of this conversation that has not ended; none: follow nothing. */
function follow() {
  const run = live()?.id ?? null;
  if (run === followed) return;
  follower?.close();
  follower = null;
  followed = run;
  if (!run) return;
  const answer = answers.get(run) ?? silent();
  answers.set(run, answer);
  heard = performance.now();
  trace.show(run);
  follower = new Follower(run, answer.cursor, {
    state: (state, detail = "") => followerIs(run, state, detail),
    note: (kind, text) => trace.note(run, kind, text),
    chunk: (cursor, chunk) => heardOf(run, answer, cursor, chunk),
  });
}

function followerIs(run, state, detail) {
  if (run !== followed) return;
  Object.assign(doing, { state, detail });
  heard = performance.now();
  if (state === "live") look();
  show();
}

function heardOf(run, answer, cursor, chunk) {
  heard = performance.now();
  takeIn(run, answer, cursor, chunk);
  showSoon();
  if (!ended(answer.state)) return;
  $("#said").textContent = textOf(answer);
  others.postMessage("look");
  look();
}

// --- what the reader does ---

function ask(prompt) {
  if (busy() || !prompt.trim() || !facts) return;
  $("#prompt").value = "";
  post(messagesFor(turnsOf(current), answerOf, prompt.trim()));
}

function retry(turn) {
  if (!busy()) post(turn.messages);
}

function post(given) {
  refusal = null;
  unsent.keep(current, { actor: facts.actor, key: current, input: { messages: given } });
  deliver(current);
  view.toLatest();
  $("#prompt").focus();
}

async function deliver(conversation) {
  const question = unsent.unsentIn(conversation);
  sending.set(conversation, false);
  show();
  try {
    const run = await unsent.deliver(conversation, question, () => {
      sending.set(conversation, true);
      show();
    });
    messages.set(run.id, question.body.input.messages);
    if (!all.some(({ id }) => id === run.id)) all.push(run);
    others.postMessage("look");
    if (withdrawn.delete(conversation)) cancel(run.id);
  } catch (problem) {
    refusal = problem;
    withdrawn.delete(conversation);
    if (conversation === current && !$("#prompt").value) $("#prompt").value = question.body.input.messages.at(-1).content;
  }
  sending.delete(conversation);
  follow();
  show();
  look();
}

function stop() {
  if (unsent.unsentIn(current)) withdrawn.add(current);
  else if (live()) cancel(live().id);
  show();
}

async function cancel(run) {
  stopping = run;
  show();
  try {
    await api.cancel(run);
  } catch (problem) {
    stopping = null;
    refusal = problem;
  }
  show();
}

function toggleConnection() {
  if (doing.state === "cut") follower?.again();
  else follower?.cut();
}

function showTrace(run) {
  trace.show(run);
  panels.open("trace");
}

/** Show another conversation. */
function choose(key) {
  current = key;
  refusal = null;
  if (location.hash !== `#/${key}`) history.replaceState(null, "", `#/${key}`);
  view.clear();
  follow();
  trace.show(followed ?? runsOf(key).at(-1)?.id ?? null);
}

function goTo(key) {
  panels.uncover();
  location.hash = `#/${key}`;
  $("#prompt").focus();
}

function fromAddress() {
  const key = /^#\/([\w.:@~-]{1,128})$/.exec(location.hash)?.[1];
  if (!key || key === current) return;
  choose(key);
  showList();
  show();
  look();
}

// --- what is shown ---

let soon = 0;

function showSoon() {
  soon ||= requestAnimationFrame(show);
}

function show() {
  cancelAnimationFrame(soon);
  soon = 0;
  const [state, detail] = whatWeDo();
  status.show(state, detail);
  const shown = turnsOf(current);
  view.show(shown, answerOf, $("#state strong").textContent);
  $("#welcome").hidden = Boolean(shown.length) || !asked || !facts;
  $("#send").hidden = busy();
  $("#stop").hidden = !busy();
  $("#stop").disabled = withdrawn.has(current) || (stopping !== null && stopping === live()?.id);
  $("#cut").disabled = !follower;
  $("#cut").textContent = follower && doing.state === "cut" ? "Connect again" : "Cut the connection";
}

/** `[state, detail]`, as `status.told` knows them. */
function whatWeDo() {
  if (unsent.unsentIn(current)) return onItsWay();
  const run = live();
  if (run && doing.state !== "live") return [doing.state || "connecting", doing.detail];
  if (run && stopping === run.id) return ["stopping"];
  if (run && answerOf(run.id).state === "queued") return ["queued"];
  if (run) return ["live", performance.now() - heard > SILENCE ? "Connected; waiting for the next chunk." : ""];
  if (!asked) return ["loading"];
  if (away) return ["away"];
  if (refusal) return ["failed", `${refusal.message} (${refusal.code})`];
  return whatCameOfIt(turnsOf(current).at(-1));
}

function onItsWay() {
  if (!withdrawn.has(current)) return [sending.get(current) ? "unsent" : "sending"];
  return ["stopping", sending.get(current) ? "The server does not answer. The question is stopped once it does." : ""];
}

function whatCameOfIt(turn) {
  if (!turn) return ["ready"];
  const { state, error, seq } = answerOf(turn.tries.at(-1));
  if (!ended(state)) return ["loading"];
  if (state === "completed") return [state, `All ${seq} chunks are here.`];
  return [state, state === "cancelled" ? "" : (error?.message ?? "")];
}

function showFacts(news) {
  facts = news;
  $("#writer").textContent = `Answers come from ${facts.writer}. Each is a run in a log on your disk.`;
  $("#kill").textContent = `kill -9 ${facts.process}`;
}

function showList() {
  const items = conversations(all).map(({ key, runs }) => {
    const title = messages.get(runs[0].id)?.at(-1)?.content ?? "…";
    const running = runs.some((run) => !ended((answers.get(run.id) ?? run).state));
    return { key, title, running };
  });
  const list = $("#list ul");
  const picture = JSON.stringify([current, items]);
  if (list.dataset.picture === picture) return; // or focus would be lost at every look
  const focused = document.activeElement?.dataset?.key;
  list.dataset.picture = picture;
  list.replaceChildren(...items.map(itemOf));
  if (focused) list.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
}

function itemOf({ key, title, running }) {
  const button = el("button", { type: "button", textContent: title, title, dataset: { key } });
  if (key === current) button.setAttribute("aria-current", "true");
  if (running) button.append(el("span", { className: "running", textContent: " answering" }));
  button.addEventListener("click", () => goTo(key));
  return el("li", {}, button);
}

function suggest() {
  const buttons = SUGGESTIONS.map((text) => {
    const button = el("button", { type: "button", textContent: text });
    button.addEventListener("click", () => ask(text));
    return el("li", {}, button);
  });
  $("#suggestions").append(...buttons);
}

// --- begin ---

function listen() {
  $("#ask").addEventListener("submit", (event) => {
    event.preventDefault();
    ask($("#prompt").value);
  });
  $("#prompt").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    ask($("#prompt").value);
  });
  $("#stop").addEventListener("click", stop);
  $("#cut").addEventListener("click", toggleConnection);
  $("#new").addEventListener("click", () => goTo(crypto.randomUUID()));
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !event.isComposing && !panels.uncover()) stop();
  });
  others.addEventListener("message", look);
  addEventListener("storage", look);
  addEventListener("hashchange", fromAddress);
  addEventListener("online", look);
  document.addEventListener("visibilitychange", () => document.hidden || look());
  setInterval(() => document.hidden || look(), LOOK);
  setInterval(() => live() && show(), SILENCE / 2);
}

panels.arrange();
suggest();
listen();
fromAddress();
show();
look();
unsent.unsent().forEach(deliver);
$("#prompt").focus();

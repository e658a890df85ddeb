/**
 * The page. What it shows is what the server's log says: a conversation is the runs of one key, an answer one run's
 * chunks. This browser keeps nothing but questions that are still on their way.
 */

import * as api from "./api.js";
import { Book } from "./book.js";
import { $, el } from "./dom.js";
import { ended, messagesFor, textOf, wordsOf } from "./fold.js";
import { Follower } from "./follow.js";
import { List } from "./list.js";
import * as panels from "./panels.js";
import { Status } from "./status.js";
import { Trace } from "./trace.js";
import { Turns } from "./turns.js";
import * as unsent from "./unsent.js";

const SUGGESTIONS = ["Tell me about rivers", "What do bees do in winter?", "A story about a clockmaker"];
const LOOK = 2000; // ms between looks at the list of runs: other browsers start some, too
const AT_A_TIME = 20_000; // characters that are read out as a whole
const SILENCE = 1500; // ms after which a live run's silence is told

const others = new BroadcastChannel("loom"); // this page in other tabs
const status = new Status($("#state"));
const trace = new Trace();
const book = new Book(trace);
const view = new Turns({ retry, trace: showTrace });
const list = new List(goTo);

let facts = null;
let current = ""; // the conversation that is shown: its runs' key
let away = true; // the server did not answer when last asked
let asked = false; // it was asked at least once
let refusal = null; // what it would not do
const stopping = new Map(); // by run that is to be stopped: whether the server was out of reach
const sending = new Map(); // by conversation with a question on its way: whether the server was out of reach

const live = () => book.liveIn(current);
const busy = () => Boolean(unsent.unsentIn(current) || live());

// --- looking at the server ---

let looking = null;

/** Look at the runs there are, and read those of this conversation. Calls meanwhile wait for one more look. */
function look() {
  if (looking) return (looking.again ??= looking.done.then(look));
  looking = { again: null, done: lookOnce().finally(() => (looking = null)) };
  return looking.done;
}

async function lookOnce() {
  try {
    showFacts(await api.facts()); // another process, perhaps
    await book.list(facts.actor);
    if (!current) choose(book.conversations[0]?.key ?? crypto.randomUUID());
    await Promise.all([book.read(current, following.run), book.readTitles()]);
    away = false;
  } catch (problem) {
    if (!(problem instanceof api.Problem)) throw problem;
    away = problem.retryable;
    if (!away) refusal = problem;
  }
  asked = true;
  follow();
  trace.begin(book.runsOf(current).at(-1)?.id);
  show();
}

// --- following the run that has not ended ---

const following = { run: null, follower: null, state: "", detail: "", heard: 0 };

function follow() {
  const run = live();
  if (run === following.run) return;
  following.follower?.close();
  Object.assign(following, { run, follower: null, state: "", detail: "", heard: performance.now() });
  if (!run) return;
  trace.show(run);
  following.follower = new Follower(run, book.answerOf(run).cursor, {
    state: (state, detail = "") => followerIs(run, state, detail),
    note: (kind, text) => trace.note(run, kind, text),
    chunk: (cursor, chunk) => heard(run, cursor, chunk),
    gone: (error) => lost(run, error),
  });
}

function followerIs(run, state, detail) {
  if (run !== following.run) return;
  Object.assign(following, { state, detail, heard: performance.now() });
  if (state === "live") look();
  show();
}

function heard(run, cursor, chunk) {
  following.heard = performance.now();
  book.hear(run, cursor, chunk);
  showSoon();
  const answer = book.answerOf(run);
  if (!ended(answer.state)) return;
  say(textOf(answer));
  others.postMessage("look");
  look();
}

/** Tell it to who listens instead of reading. */
function say(text) {
  $("#said").textContent = text.length > AT_A_TIME ? "A long answer has ended." : text;
}

function lost(run, error) {
  book.lose(run, error);
  look();
}

function toggleConnection() {
  if (following.state === "cut") following.follower?.again();
  else following.follower?.cut();
}

// --- what the reader asks for ---

function ask(prompt) {
  if (busy() || !prompt.trim() || !facts) return;
  setPrompt("");
  post(messagesFor(book.turnsOf(current), (run) => book.answerOf(run), prompt.trim()));
}

function retry(turn) {
  if (!busy()) post(turn.messages);
}

function post(messages) {
  refusal = null;
  try {
    unsent.keep(current, { actor: facts.actor, key: current, input: { messages } });
  } catch (problem) {
    giveBack(problem, messages);
    return show();
  }
  deliver(current);
  view.toLatest();
  $("#prompt").focus();
}

/** Send what is on its way, whichever tab it was asked in: that one may be closed. */
function deliverAll() {
  for (const conversation of unsent.unsent()) if (!sending.has(conversation)) deliver(conversation);
}

async function deliver(conversation) {
  const question = unsent.unsentIn(conversation);
  const { messages } = question.body.input;
  sending.set(conversation, false);
  show();
  try {
    const run = await unsent.deliver(conversation, question, () => {
      sending.set(conversation, true);
      show();
    });
    book.add(run, messages);
    others.postMessage("look");
  } catch (problem) {
    if (conversation === current) giveBack(problem, messages);
    else refusal = problem;
  }
  sending.delete(conversation);
  deliverAll(); // another tab may have asked something there meanwhile
  follow();
  show();
  look();
}

/** It was refused: the reader, who lost nothing, may change it. */
function giveBack(problem, messages) {
  refusal = problem;
  if (!$("#prompt").value) setPrompt(wordsOf(messages.at(-1)));
}

function stop() {
  if (unsent.unsentIn(current)) unsent.withdraw(current);
  else if (live()) cancel(live());
  show();
}

/** Its last chunk confirms it. */
async function cancel(run) {
  if (stopping.has(run)) return;
  const stands = (unheard) => {
    stopping.set(run, unheard);
    show();
  };
  stands(false);
  try {
    await api.insist(() => api.cancel(run), () => stands(true));
    stands(false);
  } catch (problem) {
    stopping.delete(run);
    if (problem.code === "not_found") lost(run, problem);
    else refusal = problem;
    show();
  }
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
  trace.show(following.run ?? book.runsOf(key).at(-1)?.id ?? null);
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
  trace.draw();
  status.show(...whatWeDo());
  const turns = book.turnsOf(current);
  view.show(turns, (run) => book.answerOf(run), status.word);
  list.show(book.conversations.map(itemOf));
  $("#welcome").hidden = Boolean(turns.length) || !asked || !facts;
  $("#send").hidden = busy();
  $("#stop").hidden = !busy();
  $("#stop").disabled = unsent.unsentIn(current)?.withdrawn || stopping.has(live());
  $("#cut").disabled = !following.follower;
  $("#cut").textContent = following.state === "cut" ? "Connect again" : "Cut the connection";
}

function itemOf(conversation) {
  const running = conversation.runs.some((run) => !ended(book.stateOf(run)));
  return { key: conversation.key, title: book.titleOf(conversation), running, current: conversation.key === current };
}

/** `[state, detail]`, as `status.told` knows them. */
function whatWeDo() {
  const question = unsent.unsentIn(current);
  if (question) return onItsWay(question);
  if (live()) return whatComes(live());
  if (!asked) return ["loading"];
  if (away) return ["away"];
  if (refusal) return ["failed", `${refusal.message} (${refusal.code})`];
  return whatCameOfIt(book.turnsOf(current).at(-1));
}

function onItsWay({ withdrawn }) {
  const unheard = sending.get(current) ?? away;
  if (!withdrawn) return [unheard ? "unsent" : "sending"];
  return ["stopping", unheard ? "The server does not answer. The question is stopped once it does." : ""];
}

function whatComes(run) {
  if (stopping.get(run)) return ["stopping", "The server does not answer. The run is stopped once it does."];
  if (following.state !== "live") return [following.state || "connecting", following.detail];
  if (stopping.has(run)) return ["stopping"];
  if (book.answerOf(run).state === "queued") return ["queued"];
  return ["live", performance.now() - following.heard > SILENCE ? "Connected; waiting for the next chunk." : ""];
}

function whatCameOfIt(turn) {
  if (!turn) return ["ready"];
  const { state, error, seq } = book.answerOf(turn.tries.at(-1));
  if (!ended(state)) return ["loading"];
  if (state === "completed") return [state, `All ${seq} chunks are here.`];
  const plain = state === "cancelled" || (state === "gone" && error.code === "not_found");
  return [state, plain ? "" : (error?.message ?? "")];
}

function showFacts(news) {
  facts = news;
  $("#writer").textContent = `Answers come from ${facts.writer}. Each is a run in a log on your disk.`;
  $("#kill").textContent = `kill -9 ${facts.process}`;
  $("#again").textContent = facts.again;
}

function setPrompt(text) {
  $("#prompt").value = text;
  fitPrompt();
}

/** As many lines as it has; where the style sheet cannot say so. */
function fitPrompt() {
  $("#prompt").rows = Math.min($("#prompt").value.split("\n").length, 8);
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

function listenToReader() {
  $("#ask").addEventListener("submit", (event) => {
    event.preventDefault();
    ask($("#prompt").value);
  });
  $("#prompt").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    ask($("#prompt").value);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !event.isComposing && !panels.uncover()) stop();
  });
  $("#prompt").addEventListener("input", fitPrompt);
  $("#stop").addEventListener("click", stop);
  $("#cut").addEventListener("click", toggleConnection);
  $("#new").addEventListener("click", () => goTo(crypto.randomUUID()));
}

function listenToTheWorld() {
  others.addEventListener("message", look);
  addEventListener("storage", () => {
    deliverAll();
    look();
  });
  addEventListener("hashchange", fromAddress);
  addEventListener("online", look);
  document.addEventListener("visibilitychange", () => document.hidden || look());
  setInterval(() => document.hidden || look(), LOOK);
  setInterval(() => live() && show(), SILENCE / 2);
}

panels.arrange();
suggest();
listenToReader();
listenToTheWorld();
fromAddress();
show();
look();
deliverAll();
$("#prompt").focus();

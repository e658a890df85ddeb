// Node: Readable.from over an async generator, piped into the response.
import http from "node:http";
import { Readable } from "node:stream";

const turn = () => new Promise(setImmediate);
const seconds = (s) => new Promise((done) => setTimeout(done, 1000 * s));
const now = () => ((performance.timeOrigin + performance.now()) / 1000).toFixed(6);
const event = (i, text) => `id: ${i}\nevent: data\ndata: ${text}\n\n`;

async function* ready(n) {
  for (let i = 0; i < n; i++) yield event(i, `{"text":"token ${i}"}`);
}
async function* turns(n) {
  for (let i = 0; i < n; i++) {
    yield event(i, `{"text":"token ${i}"}`);
    await turn();
  }
}
async function* ticks(every) {
  yield event(0, `{"t":${now()}}`);
  let due = performance.now() / 1000 + every * Math.random();
  for (let i = 1; ; i++, due += every) {
    await seconds(due - performance.now() / 1000);
    yield event(i, `{"t":${now()}}`);
  }
}

const viewers = new Set();
let timer;
function view(every, response) {
  let i = 0;
  timer ??= setInterval(() => {
    const text = event(i++, `{"t":${now()}}`);
    for (const viewer of viewers) viewer.write(text);
  }, 1000 * every);
  response.flushHeaders();
  viewers.add(response);
  response.on("close", () => viewers.delete(response));
}

const sources = { ready, turns, ticks };
const server = http.createServer((request, response) => {
  const [, kind, argument] = request.url.split("/");
  response.writeHead(200, { "Content-Type": "text/event-stream" });
  if (kind === "view") return view(Number(argument), response);
  Readable.from(sources[kind](Number(argument))).pipe(response);
});
server.listen(0, "127.0.0.1", 2048, () => console.log(server.address().port));

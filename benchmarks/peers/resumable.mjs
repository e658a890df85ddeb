// npm's resumable-stream: the producer publishes to whoever listens, and nothing is stored in Redis.
//   node resumable.mjs worker|gateway                    as `redis_stream` has them; REDIS_URL names the server
//   node resumable.mjs appends one|many|turns            producers that are always ready
//   node resumable.mjs reads one|many|turns SECONDS      their readers: chunks a second
import http from "node:http";
import { Readable } from "node:stream";
import { createClient } from "redis";
import { createResumableStreamContext } from "resumable-stream";

const PREFIX = "resumable-stream:rs";
const [role, kind, length] = process.argv.slice(2);
const url = process.env.REDIS_URL;
const turn = () => new Promise(setImmediate);
const seconds = (s) => new Promise((done) => setTimeout(done, 1000 * s));
const now = () => (performance.timeOrigin + performance.now()) / 1000;
const event = (i, text, type = "data") => `id: ${i}\nevent: ${type}\ndata: ${text}\n\n`;
const stamp = (t) => `{"t":${t.toFixed(6)}}`;

async function* ready(n) {
  for (let i = 0; i < n; i++) yield event(i, `{"text":"token ${i}"}`);
}
async function* paced(n) {
  for (let i = 0; i < n; i++) {
    yield event(i, stamp(now()));
    await seconds(0.005);
  }
}
async function* ticks(every) {
  yield event(0, stamp(now()));
  let due = performance.now() / 1000 + every * Math.random();
  for (let i = 1; ; i++, due += every) {
    await seconds(due - performance.now() / 1000);
    yield event(i, stamp(now()));
  }
}
let last = [0, 0];
async function* bursts(every) {
  for (let i = 0; ; i++) {
    const number = Math.round(now() / every);
    if (number !== last[0]) last = [number, now()];
    yield event(i, stamp(last[1]));
    await seconds((number + 1) * every - now());
  }
}
async function* ended(source) {
  yield* source;
  yield event("end", "null", "complete");
}

const sources = { ready, paced, ticks, bursts };
const streams = createResumableStreamContext({ waitUntil: null });
const drain = async (stream) => {
  for await (const _ of stream);
};

async function work() {
  const client = await createClient({ url }).connect();
  console.log(0);
  for (;;) {
    const found = await client.blPop("jobs", 1);
    if (!found) continue;
    const job = JSON.parse(found.element);
    const make = () => Readable.toWeb(Readable.from(ended(sources[job.actor](job.input))));
    drain(await streams.createNewResumableStream(job.id, make));
  }
}

async function follow(id, response) {
  response.writeHead(200, { "Content-Type": "text/event-stream" });
  response.flushHeaders();
  let stream;
  while (!(stream = await streams.resumeExistingStream(id))) await seconds(0.01);
  Readable.fromWeb(stream).pipe(response);
}

async function serve() {
  const client = await createClient({ url }).connect();
  const server = http.createServer(async (request, response) => {
    if (request.method === "GET") return follow(request.url.split("/")[2], response);
    let body = "";
    for await (const piece of request) body += piece;
    await client.rPush("jobs", body);
    response.writeHead(201).end();
  });
  server.listen(0, "127.0.0.1", 2048, () => console.log(server.address().port));
}

const ids = Array.from({ length: kind === "one" ? 1 : 64 }, (_, i) => `r${i}`);

// Producers that are always ready. Without a listener nothing would be published, and they would spin in microtasks:
// they begin when `reads` says so.
async function appends() {
  const client = await createClient({ url }).connect();
  let go;
  const listening = new Promise((done) => (go = done));
  async function* busy() {
    await listening;
    for (let i = 0; ; i++) {
      yield `token ${i}`;
      if (kind === "turns") await turn();
    }
  }
  await client.subscribe("go", () => go());
  for (const id of ids) drain(await streams.createNewResumableStream(id, () => Readable.toWeb(Readable.from(busy()))));
  console.log(0);
}

async function reads() {
  const client = await createClient({ url }).connect();
  let count = 0;
  const read = async (stream) => {
    for await (const _ of stream) count++;
  };
  for (const id of ids) read(await streams.resumeExistingStream(id));
  await client.publish("go", "");
  await seconds(0.5);
  const [begun, before] = [now(), count];
  await seconds(Number(length));
  console.log(JSON.stringify({ rate: (count - before) / (now() - begun) }));
  process.exit(0);
}

await { worker: work, gateway: serve, appends, reads }[role]();

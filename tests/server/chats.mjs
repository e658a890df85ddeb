// The `openai` package of npm, unmodified: `node chats.mjs CASE BASE_URL KEY` says as JSON what it saw.
import OpenAI from "openai";

const [what, baseURL, apiKey] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0, timeout: 10_000 });
const messages = [{ role: "user", content: "Tell me about rivers" }];
const weather = {
  type: "function",
  function: { name: "weather", parameters: { type: "object", properties: { city: { type: "string" } } } },
};
const say = (value) => process.stdout.write(JSON.stringify(value) + "\n");
const failure = (error) => ({
  kind: error.constructor.name,
  status: error.status ?? null,
  code: error.code ?? null,
  param: error.param ?? null,
  message: error.message,
});

const cases = {
  async stream() {
    const { data: stream, request_id } = await client.chat.completions
      .create({ model: "@cf/m", messages, stream: true, stream_options: { include_usage: true } })
      .withResponse();
    const chunks = [];
    for await (const chunk of stream) chunks.push(chunk);
    return { chunks, request_id };
  },

  async whole() {
    return await client.chat.completions.create({ model: "rivers", messages });
  },

  async tools() {
    const runner = client.chat.completions.runTools({
      model: "tools",
      messages,
      stream: true,
      tools: [
        {
          type: "function",
          function: {
            ...weather.function,
            description: "The weather in a city.",
            parse: JSON.parse,
            function: ({ city }) => `raining in ${city}`,
          },
        },
      ],
    });
    return await runner.finalContent();
  },

  async breaks() {
    const said = [];
    try {
      const stream = await client.chat.completions.create({ model: "breaks", messages, stream: true });
      for await (const chunk of stream) said.push(chunk.choices[0].delta.content);
    } catch (error) {
      return { said, ...failure(error) };
    }
  },

  async wrong() {
    const seen = [];
    for (const [options, body] of [
      [{}, { model: "busy", messages, stream: true }],
      [{}, { model: "rivers", messages, temperature: "hot" }],
      [{ apiKey: "wrong" }, { model: "rivers", messages }],
    ]) {
      try {
        await client.withOptions(options).chat.completions.create(body);
      } catch (error) {
        seen.push(failure(error));
      }
    }
    return seen;
  },

  async silence() {
    const stream = await client.chat.completions.create({ model: "thinks", messages, stream: true });
    const said = [];
    for await (const chunk of stream) said.push(chunk.choices[0].delta.content ?? null);
    return said;
  },

  async models() {
    const names = [];
    for await (const model of client.models.list()) names.push(model.id);
    return { names, one: (await client.models.retrieve("@cf/meta/llama")).id };
  },

  async leave() {
    const stream = await client.chat.completions.create({ model: "forwards", messages, stream: true });
    for await (const chunk of stream) {
      say(chunk.choices[0].delta.content);
      stream.controller.abort();
    }
    await new Promise((left) => process.stdin.on("end", left).resume()); // alive: it is the abort that closes
    return "left";
  },
};

say(await cases[what]());

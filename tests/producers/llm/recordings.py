"""Answers as servers that speak Chat Completions send them, shortened, with the parts that they mean."""

from __future__ import annotations

from dataclasses import dataclass, field

from loom.model.parts import FinishReasonPart, Part, ReasoningPart, TextPart, ToolCallPart, UsagePart

SSE = "text/event-stream"


@dataclass(frozen=True)
class Recording:
    """`body` as it stands on the line; `finished_by`: the bytes that, once they are there, make the answer whole."""

    name: str
    body: bytes
    parts: list[Part] = field(repr=False)
    finished_by: bytes
    content_type: str = SSE

    @property
    def said(self) -> list[Part]:
        """The parts without those of the end."""
        return [part for part in self.parts if isinstance(part, TextPart | ReasoningPart)]

    @property
    def whole_from(self) -> int:
        return self.body.index(self.finished_by) + len(self.finished_by)


OPENAI = Recording(
    "openai",
    body="""\
data: {"id":"chatcmpl-C1","object":"chat.completion.chunk","created":1763712000,"model":"gpt-4.1-mini-2025-04-14",\
"service_tier":"default","system_fingerprint":"fp_1","choices":[{"index":0,"delta":{"role":"assistant","content":"",\
"refusal":null},"logprobs":null,"finish_reason":null}],"usage":null,"obfuscation":"Qk7"}

data: {"id":"chatcmpl-C1","choices":[{"index":0,"delta":{"content":"Grüße"},"logprobs":null,"finish_reason":null}],\
"usage":null,"obfuscation":"x"}

data: {"id":"chatcmpl-C1","choices":[{"index":0,"delta":{"content":" vom 🌊"},"finish_reason":null}],"usage":null}

data: {"id":"chatcmpl-C1","choices":[{"index":0,"delta":{"content":"\\n\\"ja\\" \\u00e9"},"finish_reason":null}]}

data: {"id":"chatcmpl-C1","choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}],"usage":null}

data: {"id":"chatcmpl-C1","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":12,"total_tokens":21,\
"prompt_tokens_details":{"cached_tokens":0}}}

data: [DONE]

""".encode(),
    parts=[
        TextPart("Grüße"),
        TextPart(" vom 🌊"),
        TextPart('\n"ja" é'),
        FinishReasonPart("stop"),
        UsagePart(9, 12, {"total_tokens": 21, "prompt_tokens_details": {"cached_tokens": 0}}),
    ],
    finished_by=b'"finish_reason":"stop"}],"usage":null}\n\n',
)

OPENAI_TOOLS = Recording(
    "openai-tools",
    body=b"""\
data: {"choices":[{"index":0,"delta":{"role":"assistant","content":null,"tool_calls":[{"index":0,"id":"call_a",\
"type":"function","function":{"name":"weather","arguments":""}}],"refusal":null},"finish_reason":null}]}

data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\\"city\\""}}]},\
"finish_reason":null}]}

data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":":\\"Oslo\\"}"}}]},\
"finish_reason":null}]}

data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":1,"id":"call_b","type":"function",\
"function":{"name":"now","arguments":""}}]},"finish_reason":null}]}

data: {"choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}

data: [DONE]

""",
    parts=[
        ToolCallPart("call_a", "weather", '{"city":"Oslo"}', 0),
        ToolCallPart("call_b", "now", "{}", 1),
        FinishReasonPart("tool_calls"),
    ],
    finished_by=b'"finish_reason":"tool_calls"}]}\n\n',
)

VLLM_REASONING = Recording(
    "vllm-reasoning",
    body=b"""\
data: {"id":"chatcmpl-7","object":"chat.completion.chunk","model":"Qwen/Qwen3-8B","choices":[{"index":0,"delta":\
{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],"usage":{"prompt_tokens":15,"total_tokens":15,\
"completion_tokens":0}}

data: {"choices":[{"index":0,"delta":{"reasoning_content":"Two and"},"finish_reason":null}],\
"usage":{"prompt_tokens":15,"total_tokens":17,"completion_tokens":2}}

data: {"choices":[{"index":0,"delta":{"reasoning":" two.","reasoning_content":" two."},"finish_reason":null}],\
"usage":{"prompt_tokens":15,"total_tokens":18,"completion_tokens":3}}

data: {"choices":[{"index":0,"delta":{"content":"4","reasoning_content":null},"finish_reason":"stop",\
"stop_reason":null}],"usage":{"prompt_tokens":15,"total_tokens":19,"completion_tokens":4}}

data: {"choices":[],"usage":{"prompt_tokens":15,"total_tokens":19,"completion_tokens":4}}

data: [DONE]

""",
    parts=[
        ReasoningPart("Two and"),
        ReasoningPart(" two."),
        TextPart("4"),
        FinishReasonPart("stop"),
        UsagePart(15, 4, {"total_tokens": 19}),
    ],
    finished_by=b'"completion_tokens":4}}\n\n',
)

OLLAMA_TOOLS = Recording(
    "ollama-tools",
    body=b"""\
data: {"id":"chatcmpl-693","object":"chat.completion.chunk","created":1763712000,"model":"qwen3:4b",\
"system_fingerprint":"fp_ollama","choices":[{"index":0,"delta":{"role":"assistant","content":"Sure."},\
"finish_reason":""}]}

data: {"choices":[{"index":0,"delta":{"role":"assistant","content":"","tool_calls":[{"id":"call_x","index":0,\
"type":"function","function":{"name":"write","arguments":"{\\"path\\":\\"a.py\\"}"}}]},"finish_reason":null}]}

data: {"choices":[{"index":0,"delta":{"role":"assistant","content":"","tool_calls":[{"id":"call_y","index":0,\
"type":"function","function":{"name":"write","arguments":"{\\"path\\":\\"b.py\\"}"}}]},"finish_reason":null}]}

data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":"stop"}]}

data: [DONE]

""",
    parts=[
        TextPart("Sure."),
        ToolCallPart("call_x", "write", '{"path":"a.py"}', 0),
        ToolCallPart("call_y", "write", '{"path":"b.py"}', 1),
        FinishReasonPart("stop"),
    ],
    finished_by=b'"finish_reason":"stop"}]}\n\n',
)

LLAMA_CPP = Recording(
    "llama.cpp",
    body=b"""\
data: {"choices":[{"finish_reason":null,"index":0,"delta":{"role":"assistant","content":null}}],"created":1763712000,\
"id":"chatcmpl-f3","model":"gemma-3-1b","system_fingerprint":"b6351-5d804a49","object":"chat.completion.chunk"}

data: {"choices":[{"finish_reason":null,"index":0,"delta":{"content":"Hello"}}],"id":"chatcmpl-f3"}

data: {"choices":[{"finish_reason":null,"index":0,"delta":{"content":"!"}}],"id":"chatcmpl-f3"}

data: {"choices":[{"finish_reason":"length","index":0,"delta":{}}],"id":"chatcmpl-f3"}

data: {"choices":[],"id":"chatcmpl-f3","usage":{"completion_tokens":2,"prompt_tokens":43,"total_tokens":45},\
"timings":{"prompt_n":43,"prompt_ms":246.082,"predicted_n":2}}

data: [DONE]

""",
    parts=[
        TextPart("Hello"),
        TextPart("!"),
        FinishReasonPart("length"),
        UsagePart(43, 2, {"total_tokens": 45}),
    ],
    finished_by=b'"finish_reason":"length","index":0,"delta":{}}],"id":"chatcmpl-f3"}\n\n',
)

CLOUDFLARE = Recording(
    "cloudflare",  # no index, no finish reason, a bare number for content: [DONE] alone ends it
    body=b"""\
data: {"id":"id-1733737971956","object":"chat.completion.chunk","created":1733737971,\
"model":"@cf/meta/llama-3.1-8b-instruct-fast","choices":[{"delta":{"content":"Count: "}}]}

data: {"id":"id-1733737971956","choices":[{"delta":{"content":1}}]}

data: {"id":"id-1733737971956","choices":[{"delta":{"content":", 2"}}],"usage":{"prompt_tokens":7,\
"completion_tokens":5,"total_tokens":12}}

data: [DONE]

""",
    parts=[
        TextPart("Count: "),
        TextPart("1"),
        TextPart(", 2"),
        FinishReasonPart("unknown"),
        UsagePart(7, 5, {"total_tokens": 12}),
    ],
    finished_by=b"data: [DONE]\n\n",
)

CLOUDFLARE_REPEATS = Recording(
    "cloudflare-repeats",  # the finish reason several times, text behind the first, [DONE] twice
    body=b"""\
data: {"choices":[{"index":0,"delta":{"content":"counter ="},"finish_reason":null}]}

data: {"choices":[{"index":0,"delta":{"content":" 0"},"finish_reason":"stop"}],"usage":{"prompt_tokens":5}}

data: {"choices":[{"index":0,"delta":{"content":""},"finish_reason":"stop"}],"usage":{"prompt_tokens":5,\
"completion_tokens":4}}

data: [DONE]

data: [DONE]

""",
    parts=[TextPart("counter ="), TextPart(" 0"), FinishReasonPart("stop"), UsagePart(5, 4)],
    finished_by=b'"usage":{"prompt_tokens":5}}\n\n',
)

CRLF_WITHOUT_DONE = Recording(
    "crlf-without-done",
    body=(
        b"\xef\xbb\xbf: keep-alive\r\n\r\n"
        b'data: {"choices":[{"index":0,"delta":{"role":"assistant"}}]}\r\n\r\n'
        b": keep-alive\r\n\r\nretry: 3000\r\n\r\ndata:\r\n\r\n"
        b'event: message\r\nid: 4\r\ndata: {"choices":[{"index":0,"delta":{"content":"\xe6\xb0\xb4"}}]}\r\n\r\n'
        b'data:{"choices":[{"index":1,"delta":{"content":"another answer"}}]}\r\n\r\n'
        b'data: {"choices":[{"index":0,\r\ndata: "delta":{"content":"!"},"finish_reason":"stop"}]}\r\n\r\n'
    ),
    parts=[TextPart("水"), TextPart("!"), FinishReasonPart("stop")],
    finished_by=b'"finish_reason":"stop"}]}\r\n\r',
    content_type="text/event-stream; charset=utf-8",
)

MISTRAL = Recording(
    "mistral",
    body=b"""\
data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}

data: {"choices":[{"index":0,"delta":{"content":[{"type":"thinking","thinking":[{"type":"text","text":"Hm."}]}]},\
"finish_reason":null}]}

data: {"choices":[{"index":0,"delta":{"content":[{"type":"text","text":"Yes"}]},"finish_reason":null}]}

data: {"choices":[{"index":0,"delta":{"content":"."},"finish_reason":"stop"}],"usage":{"prompt_tokens":4,\
"total_tokens":9,"completion_tokens":5}}

data: [DONE]

""",
    parts=[
        ReasoningPart("Hm."),
        TextPart("Yes"),
        TextPart("."),
        FinishReasonPart("stop"),
        UsagePart(4, 5, {"total_tokens": 9}),
    ],
    finished_by=b'"completion_tokens":5}}\n\n',
)

GEMINI_TOOLS = Recording(
    "gemini-tools",  # neither index nor id, calls whole, one with its arguments as an object
    body=b"""\
data: {"choices":[{"index":0,"delta":{"role":"assistant","tool_calls":[\
{"type":"function","id":"","function":{"name":"a","arguments":"{\\"n\\":1}"}},\
{"type":"function","id":"","function":{"name":"a","arguments":{"n":2}}}]},"finish_reason":"tool_calls"}]}

data: [DONE]

""",
    parts=[
        ToolCallPart("call_0", "a", '{"n":1}', 0),
        ToolCallPart("call_1", "a", '{"n":2}', 1),
        FinishReasonPart("tool_calls"),
    ],
    finished_by=b'"finish_reason":"tool_calls"}]}\n\n',
)

REFUSAL = Recording(
    "refusal",
    body=b"""\
data: {"choices":[{"index":0,"delta":{"role":"assistant","content":null,"refusal":""},"finish_reason":null}]}

data: {"choices":[{"index":0,"delta":{"refusal":"I cannot."},"finish_reason":null}]}

data: {"choices":[{"index":0,"delta":{},"finish_reason":"content_filter"}]}

data: [DONE]

""",
    parts=[TextPart("I cannot."), FinishReasonPart("content_filter")],
    finished_by=b'"finish_reason":"content_filter"}]}\n\n',
)

NOT_STREAMED = Recording(
    "not-streamed",
    body=(
        b'{"id":"chatcmpl-1","object":"chat.completion","created":1763712000,"model":"m","choices":[{"index":0,'
        b'"message":{"role":"assistant","content":"All at once."},"finish_reason":"stop"}],'
        b'"usage":{"prompt_tokens":3,"completion_tokens":4}}'
    ),
    parts=[TextPart("All at once."), FinishReasonPart("stop"), UsagePart(3, 4)],
    finished_by=b'"completion_tokens":4}}',
    content_type="application/json; charset=utf-8",
)

RECORDINGS = [
    OPENAI,
    OPENAI_TOOLS,
    VLLM_REASONING,
    OLLAMA_TOOLS,
    LLAMA_CPP,
    CLOUDFLARE,
    CLOUDFLARE_REPEATS,
    CRLF_WITHOUT_DONE,
    MISTRAL,
    GEMINI_TOOLS,
    REFUSAL,
    NOT_STREAMED,
]

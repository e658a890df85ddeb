"""The line, without a connection: what cannot be reached through whole recordings."""

from __future__ import annotations

import json
from typing import Any

import pytest

from loom.model import limits
from loom.model.errors import InvalidInput, LimitExceeded, RemoteProtocolError, Unauthorized, Unavailable
from loom.model.parts import FinishReasonPart, Part, TextPart, ToolCallPart, UsagePart
from loom.producers.llm import Ask
from loom.producers.llm.completions import Answer, request_body
from loom.wire import sse

from .recordings import RECORDINGS, SSE, Recording

IN_ITSELF: list[Any] = []
IN_ITSELF.append(IN_ITSELF)


def feed(answer: Answer, *documents: Any) -> list[Part]:
    return [part for document in documents for part in answer.feed(json.dumps(document).encode())]


def delta(finish: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"choices": [{"delta": fields, "finish_reason": finish}]}


def call(index: int | None = None, id: str | None = None, name: str | None = None, arguments: Any = None) -> Any:
    return delta(tool_calls=[{"index": index, "id": id, "function": {"name": name, "arguments": arguments}}])


def calls_of(*pieces: Any, finish: str = "tool_calls") -> list[ToolCallPart]:
    answer = Answer()
    feed(answer, *pieces, delta(finish))
    return [part for part in answer.end() if isinstance(part, ToolCallPart)]


@pytest.mark.parametrize("recording", [r for r in RECORDINGS if r.content_type.startswith(SSE)], ids=lambda r: r.name)
def test_byte_by_byte(recording: Recording) -> None:
    decoder, answer = sse.Decoder(), Answer()
    parts: list[Part] = []
    for byte in recording.body:
        for event in decoder.feed(bytes([byte])):
            parts += answer.feed(event.data, event.type)
    assert [*parts, *answer.end()] == recording.parts


def test_an_answer_that_was_cut_has_no_end() -> None:
    answer = Answer()
    feed(answer, delta(content="Hel"))
    assert not answer.finished
    with pytest.raises(Unavailable):
        answer.end()


def test_nothing_counts_behind_done() -> None:
    answer = Answer()
    feed(answer, {"choices": [{"delta": {}}]})
    answer.feed(b"[DONE]")
    assert feed(answer, delta(content="more")) == []
    assert answer.end() == [FinishReasonPart("unknown")]


@pytest.mark.parametrize(
    "data",
    [
        b"{",
        b"[]",
        b"7",
        b'{"choices":7}',
        b'{"choices":[{"delta":{"content":1.50}}]}',
        b'{"choices":[{"delta":{"content":true}}]}',
        b'{"choices":[{"delta":{"content":["x"]}}]}',
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    ],
)
def test_what_is_no_chat_completion(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        Answer().feed(data)


def test_a_document_that_is_no_chat_completion() -> None:
    with pytest.raises(RemoteProtocolError):
        Answer().whole(b'{"object":"list","data":[]}')


@pytest.mark.parametrize(
    ("event", "kind", "message"),
    [
        ({"error": {"message": "busy", "type": "server_error", "code": None}}, Unavailable, "busy"),
        ({"error": {"message": "full", "type": "overloaded", "code": 503}}, Unavailable, "full"),
        ({"error": {"message": "long", "type": "exceed_context_size_error", "code": 400}}, LimitExceeded, "long"),
        ({"error": {"message": "long", "code": "context_length_exceeded"}}, LimitExceeded, "long"),
        ({"error": {"message": "slow", "code": "429"}}, LimitExceeded, "slow"),
        ({"error": {"message": "who", "type": "authentication_error"}}, Unauthorized, "key"),
        ({"error": "plain"}, Unavailable, "plain"),
        ({"object": "error", "message": "old", "code": 400}, InvalidInput, "old"),
        (
            {"choices": [{"delta": {"content": ""}, "finish_reason": "error"}], "error": {"message": "x"}},
            Unavailable,
            "x",
        ),
    ],
)
def test_an_error_in_mid_stream(event: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        feed(Answer(), event)


def test_an_event_named_error() -> None:
    with pytest.raises(InvalidInput, match="bad model"):
        Answer().feed(b'{"message":"bad model","code":404}', "error")


@pytest.mark.parametrize("reason", ["error", "abort"])
def test_a_finish_reason_that_means_failure(reason: str) -> None:
    with pytest.raises(Unavailable, match=reason):
        feed(Answer(), delta(reason))


def test_a_running_count_of_a_cut_answer_is_not_told() -> None:
    running = {**delta("stop"), "usage": {"prompt_tokens": 3, "completion_tokens": 1}}
    answer = Answer()
    feed(answer, running)
    assert answer.end() == [FinishReasonPart("stop")]
    answer.feed(b"[DONE]")
    assert UsagePart(3, 1) in answer.end()


def test_counts_that_are_none() -> None:
    answer = Answer()
    feed(answer, delta("stop"), {"choices": [], "usage": {"prompt_tokens": None, "completion_tokens": 2.0, "x": None}})
    assert answer.end()[-1] == UsagePart(0, 2, {"x": None})
    feed(answer, {"choices": [], "usage": {"prompt_tokens": -3, "completion_tokens": "7"}})
    assert answer.end()[-1] == UsagePart(0, 0)


# --- tool calls ------------------------------------------------------------------------------------------------------


def test_calls_in_pieces_side_by_side() -> None:
    pieces = [call(0, "a", "f", "{"), call(1, "b", "g", "["), call(0, None, None, "}"), call(1, "", "", "]")]
    assert calls_of(*pieces) == [ToolCallPart("a", "f", "{}", 0), ToolCallPart("b", "g", "[]", 1)]


def test_pieces_that_repeat_id_and_name() -> None:
    assert calls_of(call(0, "a", "f", '{"n"'), call(0, "a", "f", ":1}")) == [ToolCallPart("a", "f", '{"n":1}', 0)]


def test_pieces_without_index() -> None:
    pieces = [call(None, "a", "f", '{"n"'), call(None, None, None, ":1}"), call(None, "b", "g", "{}")]
    assert calls_of(*pieces) == [ToolCallPart("a", "f", '{"n":1}', 0), ToolCallPart("b", "g", "{}", 1)]


def test_whole_calls_on_one_index_without_ids() -> None:
    pieces = [call(0, None, "f", '{"n":1}'), call(0, None, "f", '{"n":2}')]
    assert [part.arguments for part in calls_of(*pieces)] == ['{"n":1}', '{"n":2}']


def test_a_piece_without_function_is_none() -> None:
    assert calls_of(call(0, "a", "f", "{}"), delta(tool_calls=[{"index": 0}])) == [ToolCallPart("a", "f", "{}", 0)]


def test_a_call_that_the_bound_cut_short_is_not_told() -> None:
    pieces = [call(0, "a", "f", "{}"), call(1, "b", "g", '{"ci')]
    assert [part.id for part in calls_of(*pieces, finish="length")] == ["a"]
    assert [part.id for part in calls_of(*pieces, finish="stop")] == ["a", "b"]


def test_calls_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "AI_TOOL_CALLS", 2)
    monkeypatch.setattr(limits, "AI_ARGUMENT_CHARACTERS", 10)
    with pytest.raises(LimitExceeded):
        calls_of(*(call(index, str(index), "f") for index in range(3)))
    with pytest.raises(LimitExceeded):
        calls_of(call(0, "a", "f", "x" * 6), call(0, None, None, "x" * 6))


# --- asking ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [object(), "half \ud800", IN_ITSELF])
def test_a_message_that_has_no_json(content: Any) -> None:
    with pytest.raises(InvalidInput, match="messages"):
        request_body(Ask(messages=[{"role": "user", "content": content}]), "m", limit_field="max_tokens")


def test_openai_is_asked_in_its_own_words() -> None:
    body = request_body(Ask(messages=[], max_tokens=5), "m", limit_field="max_completion_tokens")
    assert json.loads(body)["max_completion_tokens"] == 5


def test_text_beside_a_finish_reason() -> None:
    answer = Answer()
    assert feed(answer, delta("stop", content="all")) == [TextPart("all")]
    assert answer.finished

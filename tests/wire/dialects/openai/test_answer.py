"""A run's chunks as chat.completion.chunk events and as the whole chat.completion: both say the same."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from loom.engine.run.writer import encode_chunk
from loom.model import limits
from loom.model.chunk import Chunk
from loom.model.errors import ErrorInfo, RemoteProtocolError, RunFailed
from loom.model.parts import (
    FinishReasonPart,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    Usage,
    UsagePart,
)
from loom.wire.dialects.lines import RetractedRanges
from loom.wire.dialects.openai.answer import Events, Whole
from loom.wire.json import decode, make_batch
from loom.wire.sse import Decoder

START = Chunk("start", {"attempt": 1, "actor": "a", "kept_through": 0})
END = Chunk("complete", None)


def said(value: Any) -> Chunk[Any]:
    return Chunk("data", value, time=1.0)


def again(kept: int, attempt: int = 2) -> Chunk[Any]:
    return Chunk("start", {"attempt": attempt, "actor": "a", "kept_through": kept})


def events_of(*chunks: Chunk[Any], one_by_one: bool = False, usage: bool = True) -> list[Any]:
    events = Events("r1", "@cf/m", 1700000000.9, include_usage=usage)
    groups = [(chunk,) for chunk in chunks] if one_by_one else [chunks]
    data, seq = b"", 1
    for group in groups:
        data += events.frames(make_batch(100000001, seq, group))
        seq += len(group)
    return [decode(e.data) if e.data != b"[DONE]" else "[DONE]" for e in Decoder().feed(data)]


def whole_of(*chunks: Chunk[Any]) -> Any:
    whole = Whole("r1", "@cf/m", 1700000000.9)
    body = whole.frames(make_batch(100000001, 1, chunks))
    assert (whole.ended, whole.spoken, whole.error) == (True, False, None)
    assert whole.frames(make_batch(100000001, 1 + len(chunks), [END])) == b"", "it is given once"
    return decode(body)


def text_of(*chunks: Chunk[Any]) -> str:
    """The answer's text, by both ways."""
    streamed = "".join(
        event["choices"][0]["delta"].get("content", "") for event in events_of(*chunks)[:-1] if event["choices"]
    )
    assert streamed == (whole_of(*chunks)["choices"][0]["message"]["content"] or "")
    return streamed


def test_the_stream() -> None:
    first, second, finish, done = events_of(START, said("Hel"), said('lo "\u00e9"\n'), END)
    assert first == {
        "id": "chatcmpl-r1",
        "object": "chat.completion.chunk",
        "created": 1700000000,
        "model": "@cf/m",
        "choices": [
            {"index": 0, "delta": {"role": "assistant", "content": "Hel"}, "logprobs": None, "finish_reason": None}
        ],
        "usage": None,
    }
    assert second["choices"][0]["delta"] == {"content": 'lo "\u00e9"\n'}
    assert finish["choices"] == [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}]
    assert {event["id"] for event in (first, second, finish)} == {"chatcmpl-r1"}
    assert done == "[DONE]"


def test_no_ids_no_names_no_retry() -> None:
    events = Events("r1", "m", 1.0)
    data = events.frames(make_batch(100000001, 1, [START, said("x"), END]))
    assert all(not line or line.startswith(b"data: ") for line in data.split(b"\n"))
    assert b"usage" not in data


def test_the_whole() -> None:
    usage = UsagePart(3, 4, {"prompt_tokens_details": {"x": 1}})
    assert whole_of(START, said("Hel"), said("lo"), said(usage), END) == {
        "id": "chatcmpl-r1",
        "object": "chat.completion",
        "created": 1700000000,
        "model": "@cf/m",
        "choices": [{
            "index": 0,
            "message": {"role": "assistant", "content": "Hello", "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }],
        "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7, "prompt_tokens_details": {"x": 1}},
    }  # fmt: skip


@pytest.mark.parametrize("one_by_one", [False, True])
def test_parts_have_their_places(one_by_one: bool) -> None:
    chunks = [
        START, said(ReasoningPart("hm")), said(TextPart("so")), said(RefusalPart("no")),
        said(ToolCallPart("c1", "now", "{}", 4)), said(ToolCallPart("c2", "then", '{"a":1}', 9)),
        said(FinishReasonPart("tool_calls")), said(UsagePart(1, 2)), END,
    ]  # fmt: skip
    events = events_of(*chunks, one_by_one=one_by_one)
    deltas = [event["choices"][0]["delta"] for event in events[:5]]
    assert deltas[:3] == [{"role": "assistant", "reasoning_content": "hm"}, {"content": "so"}, {"refusal": "no"}]
    calls = [
        {"index": 0, "id": "c1", "type": "function", "function": {"name": "now", "arguments": "{}"}},
        {"index": 1, "id": "c2", "type": "function", "function": {"name": "then", "arguments": '{"a":1}'}},
    ]
    assert deltas[3] == {"tool_calls": calls}
    assert events[4]["choices"][0]["finish_reason"] == "tool_calls"
    assert events[5]["choices"] == []
    assert events[5]["usage"] == {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    message = whole_of(*chunks)["choices"][0]["message"]
    assert (message["reasoning_content"], message["content"], message["refusal"]) == ("hm", "so", "no")
    assert [call["id"] for call in message["tool_calls"]] == ["c1", "c2"]
    assert all("index" not in call for call in message["tool_calls"])


def test_calls_that_the_actor_answered_itself_are_not_the_clients() -> None:
    rounds = [
        START, said(ToolCallPart("c1", "now", "{}")), said(FinishReasonPart("tool_calls")), said(UsagePart(1, 2)),
        said(TextPart("noon")), said(FinishReasonPart("length")), said(UsagePart(3, 4, {"prompt_tokens_details": {}})),
        END,
    ]  # fmt: skip
    choice = whole_of(*rounds)["choices"][0]
    assert "tool_calls" not in choice["message"]
    assert choice["finish_reason"] == "length"
    assert whole_of(*rounds)["usage"] == {"prompt_tokens": 4, "completion_tokens": 6, "total_tokens": 10}
    assert [event["choices"][0]["delta"] for event in events_of(*rounds)[:2]] == [
        {"role": "assistant", "content": "noon"}, {},
    ]  # fmt: skip


def test_calls_with_results_are_not_the_clients() -> None:
    """As `run_tools` gives them: one finish reason, behind all rounds. Some models give every round the same ids."""
    call, result = said(ToolCallPart("c0", "now", "{}")), said(ToolResultPart("c0", "now", "noon"))
    stop = said(FinishReasonPart("stop"))
    for rounds in ([call, result], [call, result, call, result]):
        (choice,) = whole_of(START, *rounds, said("It is noon."), stop, END)["choices"]
        assert "tool_calls" not in choice["message"]
        assert choice["finish_reason"] == "stop"
        deltas = [event["choices"][0] for event in events_of(START, *rounds, said("It is noon."), stop, END)[:-1]]
        assert not any("tool_calls" in choice["delta"] for choice in deltas)
        assert deltas[-1]["finish_reason"] == "stop"
    (choice,) = whole_of(START, call, result, call, stop, END)["choices"]
    assert [told["id"] for told in choice["message"]["tool_calls"]] == ["c0"]
    (choice,) = whole_of(START, call, result, again(2), END)["choices"]
    assert len(choice["message"]["tool_calls"]) == 1


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("content_filter", "content_filter"),
        ("unknown", "stop"),
        ("eos", "stop"),
    ],
)
def test_finish_reasons_are_openais_words(reason: str, told: str) -> None:
    assert whole_of(START, said("x"), said(FinishReasonPart(reason)), END)["choices"][0]["finish_reason"] == told


def test_other_values_are_their_json_on_a_line_each() -> None:
    values: list[Any] = [{"i": 0}, [1], 2.5, True, {"part": "of the whole"}, {"part": 3}]
    expected = '{"i":0}\n[1]\n2.5\ntrue\n{"part":"of the whole"}\n{"part":3}\n'
    assert text_of(START, *[said(value) for value in values], END) == expected


@pytest.mark.parametrize(
    "text", ['"', "\\", '\\"', '","error":1', "a\nb", "\x00\x7f", "\u2028é😀", '"data":"x"', "</script>"]
)
def test_any_text_arrives_as_it_is(text: str) -> None:
    assert text_of(START, said(text), said(text + "."), END) == text + text + "."


def test_what_has_no_place_is_left_out() -> None:
    chunks: list[Chunk[Any]] = [
        START, Chunk("progress"), Chunk("stdout", "log"), said(None), said(""), said(TextPart("")),
        Chunk("text-delta", "kept"), Chunk("text-delta", {"no": 1}), END,
    ]  # fmt: skip
    assert text_of(*chunks) == "kept"


@pytest.mark.parametrize(
    ("result", "text"), [("done", "done"), ({"a": 1}, '{"a":1}'), ([], "[]"), (7, "7"), (None, ""), ("", "")]
)
def test_a_result_is_the_text_where_there_was_no_output(result: Any, text: str) -> None:
    assert text_of(START, Chunk("progress"), Chunk("complete", result)) == text
    assert text_of(START, said("said"), Chunk("complete", result)) == "said"


def test_the_role_is_told_even_if_nothing_else_is() -> None:
    assert events_of(START, END)[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    calls_only = events_of(START, said(ToolCallPart("c", "f", "{}")), END)
    assert calls_only[0]["choices"][0]["delta"]["role"] == "assistant"
    assert whole_of(START, said(ToolCallPart("c", "f", "{}")), END)["choices"][0]["message"]["content"] is None


def test_what_the_run_s_models_used_is_the_usage() -> None:
    """Unless the producer says itself, as `UsagePart`, what is to be told."""
    end = Chunk("complete", None, usage=Usage(5, 7, calls=2, uncounted=1))
    expected = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}
    assert events_of(START, said("x"), end)[-2]["usage"] == expected
    assert whole_of(START, said("x"), end)["usage"] == expected
    assert whole_of(START, said("x"), said(UsagePart(1, 1)), end)["usage"]["total_tokens"] == 2


def test_a_count_before_the_finish_reason_is_replaced_by_the_next() -> None:
    """As Anthropic's answers have it: the first count is of what there was by then."""
    finish, early, final = said(FinishReasonPart("stop")), said(UsagePart(3, 1)), said(UsagePart(3, 7))
    answer = [said("x"), early, finish, final]
    assert whole_of(START, *answer, END)["usage"]["total_tokens"] == 10
    assert events_of(START, *answer, END)[-2]["usage"]["total_tokens"] == 10
    assert whole_of(START, *answer, *answer, END)["usage"]["total_tokens"] == 20
    assert whole_of(START, said("x"), early, again(3), *answer, END)["usage"]["total_tokens"] == 14


def test_no_usage_is_made_up() -> None:
    uncounted = Chunk("complete", None, usage=Usage(calls=1, uncounted=1))
    assert "usage" not in whole_of(START, said("x"), uncounted)
    assert [event for event in events_of(START, said("x"), END)[:-1] if not event["choices"]] == []
    assert "usage" not in whole_of(START, said("x"), END)


# --- errors and restarts ---------------------------------------------------------------------------------------------


def test_an_error_in_mid_stream_is_the_last_event() -> None:
    events = events_of(START, said("x"), Chunk("error", error=ErrorInfo("run_failed", "ouch")))
    error = {"message": "ouch", "type": "server_error", "param": None, "code": "run_failed"}
    assert events[1:] == [{"error": error}]


def test_an_error_before_anything_was_said_is_known_as_such() -> None:
    events = Events("r", "m", 1.0)
    events.frames(make_batch(100000001, 1, [START, Chunk("progress")]))
    assert (events.ended, events.spoken, events.error) == (False, False, None)
    events.frames(make_batch(100000001, 3, [Chunk("error", error=ErrorInfo("run_failed", "ouch"))]))
    assert (events.ended, events.spoken) == (True, False)
    assert events.error is not None
    assert events.error.message == "ouch"


def test_an_attempt_that_keeps_what_was_sent_goes_on() -> None:
    chunks = [START, said("Hel"), Chunk("progress"), again(2), said("lo"), END]
    assert text_of(*chunks) == "Hello"
    assert len([e for e in events_of(*chunks)[:-1] if "role" in e["choices"][0]["delta"]]) == 1


def test_an_attempt_that_takes_back_what_was_sent_ends_the_stream() -> None:
    chunks = [START, said("Hel"), said("p"), again(2), said("lo"), END]
    events = events_of(*chunks)
    assert events[-1]["error"]["code"] == "run_restarted"
    assert len(events) == 3
    assert whole_of(*chunks)["choices"][0]["message"]["content"] == "Hello", "the whole was not sent before"
    stream = Events("r", "m", 1.0)
    stream.frames(make_batch(100000001, 1, chunks[:4]))
    assert stream.ended


def test_what_is_known_to_be_taken_back_is_not_sent() -> None:
    chunks = [START, said("Hel"), said("p"), again(2), said("X"), again(2, 3), said("lo"), END]
    batch = make_batch(100000001, 1, chunks)
    gone = RetractedRanges()
    gone.feed(batch)
    assert [seq for seq, line in enumerate(batch.lines(), 1) if gone.covers(seq, line)] == [3, 4, 5]
    events = Events("r", "m", 1.0)
    data = b"".join(map(events.frames, gone.surviving(batch)))
    assert b'"Hel"' in data
    assert b'"lo"' in data
    assert b'"p"' not in data
    assert b'"X"' not in data
    assert data.endswith(b"[DONE]\n\n")


def test_a_repeated_step_takes_back_what_it_sent_and_nothing_else() -> None:
    def step(source: str, text: str) -> Chunk[Any]:
        return Chunk("data", text, source=source)

    begin: Chunk[Any] = Chunk("action-start", {}, source="s")
    silent = [START, begin, step("t", "a"), begin, step("s", "b"), END]
    assert text_of(*silent) == "ab"
    spoken = [START, begin, step("s", "a"), step("t", "b"), begin, step("s", "c"), END]
    assert events_of(*spoken)[-1]["error"]["code"] == "run_restarted"
    assert whole_of(*spoken)["choices"][0]["message"]["content"] == "bc"
    batch, gone = make_batch(1, 1, spoken), RetractedRanges()
    gone.feed(batch)
    events = Events("r", "m", 1.0)
    data = b"".join(map(events.frames, gone.surviving(batch)))
    assert b'"b"' in data
    assert b'"c"' in data
    assert b'"a"' not in data


def test_what_was_held_back_can_be_taken_back() -> None:
    chunks = [
        START, said("Hel"), said(ToolCallPart("c", "f", "{}")), said(FinishReasonPart("tool_calls")),
        said(UsagePart(1, 1)), again(2), said("lo"), said(FinishReasonPart("stop")), said(UsagePart(2, 2)), END,
    ]  # fmt: skip
    assert text_of(*chunks) == "Hello"
    choice = whole_of(*chunks)["choices"][0]
    assert (choice["finish_reason"], "tool_calls" in choice["message"]) == ("stop", False)
    assert whole_of(*chunks)["usage"]["total_tokens"] == 4


def test_restarting_before_anything_was_said_changes_nothing() -> None:
    assert text_of(START, again(0), Chunk("progress"), again(0, 3), said("x"), END) == "x"


def test_a_whole_answer_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "COMPLETION_BYTES", 100)
    whole = Whole("r", "m", 1.0)
    whole.frames(make_batch(100000001, 1, [START, *(said("x" * 50) for _ in range(10))]))
    assert whole.error is not None
    assert (whole.error.code, whole.ended) == ("invalid_output", True)


def test_what_is_held_back_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "COMPLETION_PARTS", 3)
    with pytest.raises(RunFailed, match="more than 3 tool calls"):
        events_of(START, *(said(ToolCallPart("c", "f", "{}")) for _ in range(4)))


def test_what_are_no_chunks_is_told() -> None:
    batch = make_batch(100000001, 1, [START])
    with pytest.raises(RemoteProtocolError):
        Events("r", "m", 1.0).frames(type(batch)(batch.epoch, 1, 1, b'{"type":3}\n'))


@pytest.mark.parametrize(
    "large",
    [
        said("x" * (limits.CHUNK_BYTES - 60)),
        said(['"'] * (limits.CHUNK_BYTES // 6)),
        said(TextPart("\x01" * (limits.CHUNK_BYTES // 6 - 20))),
        said(ToolCallPart("i", "n" * (limits.CHUNK_BYTES // 2), "\x01" * (limits.CHUNK_BYTES // 12 - 20))),
        said(UsagePart(1, 2, details={"prompt_tokens_details": {"x": "x" * (limits.CHUNK_BYTES - 200)}})),
    ],
    ids=["text", "json", "part", "call", "usage"],
)
def test_the_largest_chunk_of_the_longest_name_fits_in_other_peoples_events(large: Chunk[Any]) -> None:
    """At httpx2's own limit; what grows on its way, JSON as text, goes out in parts."""
    assert len(encode_chunk(large)) <= limits.CHUNK_BYTES
    events = Events("r" * limits.ID_LENGTH, "\x01" * limits.MODEL_NAME, 10.0**15, include_usage=True)
    stream = events.frames(make_batch(1, 1, [START, large, large, END]))
    response = httpx2.Response(
        200, headers={"content-type": "text/event-stream"}, content=stream, request=httpx2.Request("GET", "http://x")
    )
    assert [event.data for event in httpx2.EventSource(response)][-1] == "[DONE]"

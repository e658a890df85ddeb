"""A run's chunks as the events of a streamed chat completion, or as the whole one.

What is said becomes text: strings and text deltas as they are, typed parts by their kind, any other value as its JSON
on a line of its own. Tool calls, the finish reason and the usage are held back until the end: a tool's result, or
output behind a finish reason, shows that the producer ran those tools itself. A result is the text where there was no
output. Everything else (progress, logs, chunks of the producer's own types) has no place on this wire.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from loom.model import limits
from loom.model.chunk import Batch, Chunk
from loom.model.errors import ErrorInfo, RemoteProtocolError, RunFailed
from loom.model.grammar import kept_through
from loom.model.parts import (
    FinishReasonPart,
    Part,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    Usage,
    UsagePart,
)
from loom.wire.json import encode

from .errors import error_body

__all__ = ["Events", "TakenBack", "Whole"]


def _completion_id(run: str) -> str:
    """The completion's id, in every event the same: it names the run."""
    return f"chatcmpl-{run}"


# --- what chunks say -------------------------------------------------------------------------------------------------


class _Piece(NamedTuple):
    """A piece of the message: which field of it, and the JSON string that is added."""

    field: bytes
    text: bytes


class _Line(msgspec.Struct, gc=False):
    type: str
    data: msgspec.Raw = msgspec.Raw(b"null")
    error: ErrorInfo | None = None
    usage: Usage | None = None


_Last = ToolCallPart | ToolResultPart | FinishReasonPart | UsagePart
_line = msgspec.json.Decoder(_Line)
_TEXT = b'{"type":"data","data":"'
_START = b'{"type":"start"'
_part: msgspec.json.Decoder[Part] = msgspec.json.Decoder(Part)
_any = msgspec.json.Decoder()
_FIELDS: dict[type[Any], bytes] = {
    TextPart: b"content",
    ReasoningPart: b"reasoning_content",  # as vLLM, DeepSeek and others have it; OpenAI shows none
    RefusalPart: b"refusal",
}


def _said(line: _Line) -> _Piece | _Last | None:
    """What an output chunk adds to the answer, if anything."""
    if line.type not in ("data", "text-delta"):
        return None
    data = bytes(line.data)
    if data.startswith(b'"'):
        return _Piece(b"content", data) if data != b'""' else None
    if line.type == "text-delta" or data == b"null":
        return None
    if b'"part"' in data and (part := _part_of(data)) is not None:
        return part if isinstance(part, _Last) else _piece(part)
    return _Piece(b"content", encode(data.decode() + "\n"))


def _part_of(data: bytes) -> Part | None:
    try:
        return _part.decode(data)
    except msgspec.ValidationError:  # a value that has a field of that name
        return None


def _piece(part: Part) -> _Piece | None:
    field = _FIELDS.get(type(part))
    text = getattr(part, "text", "")
    return _Piece(field, encode(text)) if field and text else None


def _result_of(line: _Line) -> _Piece | None:
    """The result as text, when nothing else was said."""
    data = bytes(line.data)
    if data in (b"null", b'""'):
        return None
    return _Piece(b"content", data if data.startswith(b'"') else encode(data.decode()))


def _kept(line: _Line) -> int:
    return kept_through(Chunk("start", _any.decode(line.data))) or 0


def _read(line: bytes) -> _Line:
    try:
        return _line.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RemoteProtocolError(f"not a chunk: {error}") from None


def _plain_text(line: bytes) -> bytes | None:
    """The JSON string of a data chunk that is a text without escapes, as nearly every token is: found, not decoded."""
    if not line.startswith(_TEXT) or b"\\" in line:
        return None
    return line[len(_TEXT) - 1 : line.index(b'"', len(_TEXT)) + 1]


class TakenBack:
    """The chunks that later attempts took back, of a log that is read before it is told."""

    def __init__(self) -> None:
        self._between: list[tuple[int, int]] = []

    def feed(self, batch: Batch) -> None:
        """Look at these chunks."""
        for seq, line in enumerate(batch.lines(), batch.first):
            if line.startswith(_START) and (kept := _kept(_read(line))) < seq - 1:
                self._between.append((kept, seq))

    def __contains__(self, seq: int) -> bool:
        return any(kept < seq < start for kept, start in self._between)


# --- what is told last -----------------------------------------------------------------------------------------------


class _Held:
    """Tool calls, their results and the finish reason of the last round, the usage of all, each with its seq."""

    def __init__(self) -> None:
        self._parts: list[tuple[int, _Last]] = []
        self._finished = False
        self._early: int | None = None  # a count before its round's finish reason: the next one replaces it

    def add(self, seq: int, part: _Last) -> None:
        """Raises `RunFailed` when there are too many."""
        if self._finished and not isinstance(part, UsagePart):
            self.go_on()
        if isinstance(part, UsagePart):
            self._replace_early(None if self._finished else seq)
        if len(self._parts) >= limits.COMPLETION_PARTS:
            most = f"more than {limits.COMPLETION_PARTS} tool calls, results and usage counts in one answer"
            raise RunFailed(most, code="invalid_output")
        self._parts.append((seq, part))
        self._finished = self._finished or isinstance(part, FinishReasonPart)

    def _replace_early(self, early: int | None) -> None:
        if self._early is not None:
            self._parts = [(seq, part) for seq, part in self._parts if seq != self._early]
        self._early = early

    def go_on(self) -> None:
        """More is said: what ended before was a round of the producer's own."""
        if self._finished:
            self._parts = [(seq, part) for seq, part in self._parts if isinstance(part, UsagePart)]
            self._finished = False

    def take_back(self, kept: int) -> None:
        self._parts = [(seq, part) for seq, part in self._parts if seq <= kept]
        self._early = None  # nobody completes what an attempt that is gone has counted
        self._finished = any(isinstance(part, FinishReasonPart) for _, part in self._parts)

    @property
    def calls(self) -> list[dict[str, Any]]:
        """Those that wait for a result. Ids may come again: a result is of the calls before it."""
        given = {part.id: seq for seq, part in self._parts if isinstance(part, ToolResultPart)}
        asked = [(seq, part) for seq, part in self._parts if isinstance(part, ToolCallPart)]
        calls = [part for seq, part in asked if given.get(part.id, 0) < seq]
        return [
            {
                "index": index,
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for index, call in enumerate(calls)
        ]

    @property
    def reason(self) -> str:
        """One of OpenAI's words: clients know no others."""
        told = next((part.reason for _, part in self._parts if isinstance(part, FinishReasonPart)), None)
        if told in ("length", "content_filter"):
            return told
        return "tool_calls" if self.calls else "stop"

    def usage(self, of_run: Usage | None) -> dict[str, Any] | None:
        """All rounds' together, else what the run's models used; None if nobody counted. Details only of a sole count:
        providers' differ."""
        counts = [part for _, part in self._parts if isinstance(part, UsagePart)]
        if not counts and of_run is not None and of_run.calls > of_run.uncounted:
            counts = [UsagePart(of_run.input_tokens, of_run.output_tokens)]
        if not counts:
            return None
        sent, said = sum(count.input_tokens for count in counts), sum(count.output_tokens for count in counts)
        details = counts[0].details if len(counts) == 1 else {}
        known = {name: details[name] for name in _DETAILS if isinstance(details.get(name), dict)}
        return {"prompt_tokens": sent, "completion_tokens": said, "total_tokens": sent + said, **known}


_DETAILS = ("prompt_tokens_details", "completion_tokens_details")


# --- the stream ------------------------------------------------------------------------------------------------------


class Events:
    """A run as events, without ids (`openai` of Python chokes on them), to be given every batch from the run's first.

    One that restarts and takes back what was sent ends in an error: this wire cannot take anything back. What is known
    to be `taken_back` is not sent.
    """

    def __init__(
        self,
        run: str,
        model: str,
        created: float,
        *,
        include_usage: bool = False,
        taken_back: TakenBack | None = None,
    ) -> None:
        self.ended = False
        """Nothing follows."""
        self.run_ended = False
        """So has the run."""
        self.spoken = False
        """Whether anything of the answer was given out."""
        self.error: ErrorInfo | None = None
        """Why it broke off."""
        self._about = (run, model, created)
        self._taken_back = taken_back
        self._spoken_to = 0
        self._held = _Held()
        self._role = b'"role":"assistant",'
        self._head = b'data: {"id":%b,"object":"chat.completion.chunk","created":%d,"model":%b,"choices":[' % (
            encode(_completion_id(run)),
            created,
            encode(model),
        )
        self._open = self._head + b'{"index":0,"delta":{'
        self._end = b',"usage":null}\n\n' if include_usage else b"}\n\n"
        self._close = b'},"logprobs":null,"finish_reason":null}]' + self._end
        self._include_usage = include_usage

    def again(self, taken_back: TakenBack | None = None) -> Events:
        """Another one for the same run, from its first batch."""
        gone = taken_back or self._taken_back
        return Events(*self._about, include_usage=self._include_usage, taken_back=gone)

    def frames(self, batch: Batch) -> bytes:
        """What these chunks add; b"" if nothing. Raises `RemoteProtocolError` for what are no chunks."""
        if batch.first == batch.last:
            return self._frame(batch.first, batch.payload)
        return b"".join([self._frame(seq, line) for seq, line in enumerate(batch.lines(), batch.first)])

    def fault(self, error: ErrorInfo) -> bytes:
        """The last event of a stream that breaks off. No ``[DONE]`` follows: nobody takes it for a whole answer."""
        self.ended = True
        self.error = error
        return b"data: %b\n\n" % error_body(error)

    def _frame(self, seq: int, data: bytes) -> bytes:
        if self.ended or (self._taken_back is not None and seq in self._taken_back):
            return b""
        text = _plain_text(data)
        if text is not None and text != b'""':
            self._spoken_to = seq
            self._held.go_on()
            return self._delta(b"content", text)
        return self._other(seq, _read(data))

    def _other(self, seq: int, line: _Line) -> bytes:
        if line.type == "start":
            return self._restart(_kept(line))
        if line.type == "complete":
            return self._complete(line)
        if line.type == "error":
            self.run_ended = True
            return self.fault(line.error or ErrorInfo("run_failed", "the run failed"))
        said = _said(line)
        if isinstance(said, _Piece):
            self._spoken_to = seq
            self._held.go_on()
            return self._delta(*said)
        if said is not None:
            self._held.add(seq, said)
        return b""

    def _delta(self, field: bytes, value: bytes) -> bytes:
        role, self._role = self._role, b""
        self.spoken = True
        return b'%b%b"%b":%b%b' % (self._open, role, field, value, self._close)

    def _restart(self, kept: int) -> bytes:
        if self._spoken_to <= kept:
            self._held.take_back(kept)
            return b""
        return self.fault(ErrorInfo("run_restarted", "a new attempt took back what was sent: ask again", True))

    def _complete(self, line: _Line) -> bytes:
        frames = b""
        calls = self._held.calls
        if not self.spoken and not calls and (piece := _result_of(line)):
            frames = self._delta(*piece)
        if calls:
            frames += self._delta(b"tool_calls", encode(calls))
        elif not self.spoken:
            frames += self._delta(b"content", b'""')
        finish = b'{"index":0,"delta":{},"logprobs":null,"finish_reason":"%b"}]' % self._held.reason.encode()
        frames += self._head + finish + self._end
        usage = self._held.usage(line.usage)
        if self._include_usage and usage is not None:
            frames += self._head + b'],"usage":%b}\n\n' % encode(usage)
        self.ended = self.run_ended = True
        return frames + b"data: [DONE]\n\n"


# --- the whole -------------------------------------------------------------------------------------------------------


class Whole:
    """A run as one ``chat.completion``, to be given every batch from the run's first. What restarts take back is not in
    it. Holds at most `limits.COMPLETION_BYTES`, beyond which it fails: a longer answer is for streaming."""

    def __init__(self, run: str, model: str, created: float) -> None:
        self.ended = False
        self.run_ended = False
        self.error: ErrorInfo | None = None
        self._run = run
        self._model = model
        self._created = int(created)
        self._pieces: list[tuple[int, _Piece]] = []
        self._bytes = 0
        self._held = _Held()
        self._used: Usage | None = None

    def feed(self, batch: Batch) -> None:
        """Take these chunks in. Raises `RemoteProtocolError` for what are none."""
        for seq, line in enumerate(batch.lines(), batch.first):
            if not self.ended:
                self._take(seq, _read(line))

    def _take(self, seq: int, line: _Line) -> None:
        if line.type == "start":
            self._restart(_kept(line))
        elif line.type == "complete":
            self.ended = self.run_ended = True
            self._used = line.usage
            if not self._pieces and not self._held.calls and (piece := _result_of(line)):
                self._add(seq, piece)
        elif line.type == "error":
            self.run_ended = True
            self._fail(line.error or ErrorInfo("run_failed", "the run failed"))
        elif isinstance(said := _said(line), _Piece):
            self._add(seq, said)
        elif said is not None:
            self._held.add(seq, said)

    def _restart(self, kept: int) -> None:
        self._held.take_back(kept)
        while self._pieces and self._pieces[-1][0] > kept:
            self._bytes -= len(self._pieces.pop()[1].text)

    def _add(self, seq: int, piece: _Piece) -> None:
        self._held.go_on()
        self._pieces.append((seq, piece))
        self._bytes += len(piece.text)
        if self._bytes > limits.COMPLETION_BYTES:
            most = f"an answer larger than {limits.COMPLETION_BYTES} bytes: stream it"
            self._fail(ErrorInfo("invalid_output", most))

    def _fail(self, error: ErrorInfo) -> None:
        self.ended = True
        self.error = error

    def body(self) -> bytes:
        """The JSON of the answer. Only once it has ended, and not in an error."""
        assert self.ended
        assert self.error is None
        held = self._held
        message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None}
        message |= {field.decode(): text for field in _FIELDS.values() if (text := self._text(field))}
        if held.calls:
            message["tool_calls"] = [{name: call[name] for name in ("id", "type", "function")} for call in held.calls]
        elif message["content"] is None and message["refusal"] is None:
            message["content"] = ""
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": held.reason}
        used = held.usage(self._used)
        usage = {} if used is None else {"usage": used}
        return encode({
            "id": _completion_id(self._run), "object": "chat.completion", "created": self._created,
            "model": self._model, "choices": [choice], **usage,
        })  # fmt: skip

    def _text(self, field: bytes) -> str:
        return "".join([_any.decode(piece.text) for _, piece in self._pieces if piece.field == field])

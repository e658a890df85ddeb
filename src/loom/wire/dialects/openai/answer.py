"""A run's chunks as the events of a streamed chat completion, or as the whole one.

Text goes out as it is said; tool calls, the finish reason and the usage at the end. Where there was no output, a result
is the text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import msgspec

from loom.model import limits
from loom.model.chunk import Batch, Chunk
from loom.model.errors import ErrorInfo
from loom.model.parts import Usage
from loom.model.retraction import Fold
from loom.wire.dialects.lines import ChunkFields, marker_of, read_line
from loom.wire.json import encode
from loom.wire.sse import HEARTBEAT

from .errors import error_body
from .held import Held
from .pieces import FIELDS, Piece, plain_text, result_of, said_of

__all__ = ["Events", "Whole"]

_any = msgspec.json.Decoder()


def _completion_id(run: str) -> str:
    """The completion's id, in every event the same: it names the run."""
    return f"chatcmpl-{run}"


# --- the stream ------------------------------------------------------------------------------------------------------


class Events:
    """A run as events, without ids (`openai` of Python chokes on them), to be given every batch from the run's first.

    A run that takes back what was sent ends in an error: this wire cannot take anything back.
    """

    headers: ClassVar[Mapping[str, str]] = {"Content-Type": "text/event-stream"}
    heartbeat = HEARTBEAT

    def __init__(self, run: str, model: str, created: float, *, include_usage: bool = False) -> None:
        self.ended = False
        self.spoken = False
        self.error: ErrorInfo | None = None
        self._fold = Fold()
        self._newest: dict[str | None, int] = {}  # the last seq of each source that was sent
        self._held = Held()
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
        if self.ended:
            return b""
        text = plain_text(data)
        if text is not None and text != b'""':
            self._newest[None] = seq
            self._held.go_on()
            return self._delta(b"content", text)
        return self._other(seq, read_line(data))

    def _other(self, seq: int, line: ChunkFields) -> bytes:
        marker = marker_of(seq, line)
        if marker is not None:
            return self._mark(marker)
        if line.type == "complete":
            return self._complete(line)
        if line.type == "error":
            return self.fault(line.error or ErrorInfo("run_failed", "the run failed"))
        said = said_of(line)
        if isinstance(said, Piece):
            self._newest[line.source] = seq
            self._held.go_on()
            return self._delta(*said)
        if said is not None:
            self._held.add(seq, line.source, said)
        return b""

    def _delta(self, field: bytes, value: bytes) -> bytes:
        """The string as it is; in parts where its event would be too large, as JSON as text can be (quotes escaped)."""
        if len(value) <= limits.CHUNK_BYTES:
            return self._event(field, value)
        return b"".join([self._event(field, encode(part)) for part in _parts(_any.decode(value))])

    def _event(self, field: bytes, value: bytes) -> bytes:
        role, self._role = self._role, b""
        self.spoken = True
        return b'%b%b"%b":%b%b' % (self._open, role, field, value, self._close)

    def _tool_calls(self, calls: list[dict[str, Any]]) -> bytes:
        """In one event, or where that would be too large, part by part: clients add up the arguments by index."""
        whole = encode(calls)
        if len(whole) <= limits.CHUNK_BYTES:
            return self._event(b"tool_calls", whole)
        return b"".join([self._event(b"tool_calls", encode([part])) for call in calls for part in _parts_of(call)])

    def _mark(self, marker: Chunk[Any]) -> bytes:
        if marker.type == "start":
            self._held.begin_attempt()
        retraction = self._fold.feed(marker)
        if retraction is None:
            return b""
        if not retraction.covers_any(self._newest):
            self._held.retract(retraction)
            return b""
        return self.fault(ErrorInfo("run_restarted", "a new attempt took back what was sent: ask again", True))

    def _complete(self, line: ChunkFields) -> bytes:
        frames = b""
        calls = self._held.calls
        if not self.spoken and not calls and (piece := result_of(line)):
            frames = self._delta(*piece)
        if calls:
            frames += self._tool_calls(calls)
        elif not self.spoken:
            frames += self._delta(b"content", b'""')
        finish = b'{"index":0,"delta":{},"logprobs":null,"finish_reason":"%b"}]' % self._held.reason.encode()
        frames += self._head + finish + self._end
        usage = self._held.usage(line.usage)
        if self._include_usage and usage is not None:
            frames += self._head + b'],"usage":%b}\n\n' % encode(usage)
        self.ended = True
        return frames + b"data: [DONE]\n\n"


def _parts(text: str) -> Iterator[str]:
    """`text` in parts of at most `limits.CHUNK_BYTES` of JSON, in which a character takes six bytes at most."""
    most = limits.CHUNK_BYTES // 6
    return (text[start : start + most] for start in range(0, len(text), most))


def _parts_of(call: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A call without its arguments, and what is added to those."""
    function = call["function"]
    yield {**call, "function": {**function, "arguments": ""}}
    for part in _parts(function["arguments"]):
        yield {"index": call["index"], "function": {"arguments": part}}


# --- the whole -------------------------------------------------------------------------------------------------------


class Whole:
    """A run as one ``chat.completion``, to be given every batch from the run's first. What restarts take back is not in
    it. Holds at most `limits.COMPLETION_BYTES`, beyond which it fails: a longer answer is for streaming."""

    headers: ClassVar[Mapping[str, str]] = {"Content-Type": "application/json"}
    heartbeat = b""
    spoken = False  # all of it comes at the end

    def __init__(self, run: str, model: str, created: float) -> None:
        self.ended = False
        self.error: ErrorInfo | None = None
        self._run = run
        self._model = model
        self._created = int(created)
        self._pieces: list[tuple[int, str | None, Piece]] = []
        self._fold = Fold()
        self._bytes = 0
        self._held = Held()
        self._used: Usage | None = None

    def frames(self, batch: Batch) -> bytes:
        """The JSON of the answer when the run ends, unless it ends in an error. Raises `RemoteProtocolError` for what
        are no chunks."""
        if self.ended:
            return b""
        for seq, line in enumerate(batch.lines(), batch.first):
            self._take(seq, read_line(line))
            if self.ended:
                break
        return self._body() if self.ended and self.error is None else b""

    def fault(self, error: ErrorInfo) -> bytes:
        """The error's JSON: nothing was sent before it."""
        self._fail(error)
        return error_body(error)

    def _take(self, seq: int, line: ChunkFields) -> None:
        marker = marker_of(seq, line)
        if marker is not None:
            self._mark(marker)
        elif line.type == "complete":
            self.ended = True
            self._used = line.usage
            if not self._pieces and not self._held.calls and (piece := result_of(line)):
                self._add(seq, None, piece)
        elif line.type == "error":
            self._fail(line.error or ErrorInfo("run_failed", "the run failed"))
        elif isinstance(said := said_of(line), Piece):
            self._add(seq, line.source, said)
        elif said is not None:
            self._held.add(seq, line.source, said)

    def _mark(self, marker: Chunk[Any]) -> None:
        if marker.type == "start":
            self._held.begin_attempt()
        retraction = self._fold.feed(marker)
        if retraction is None:
            return
        self._held.retract(retraction)
        retraction.cut(self._pieces, lambda each: each[:2])
        self._bytes = sum(len(piece.text) for _, _, piece in self._pieces)

    def _add(self, seq: int, source: str | None, piece: Piece) -> None:
        self._held.go_on()
        self._pieces.append((seq, source, piece))
        self._bytes += len(piece.text)
        if self._bytes > limits.COMPLETION_BYTES:
            most = f"an answer larger than {limits.COMPLETION_BYTES} bytes: stream it"
            self._fail(ErrorInfo("invalid_output", most))

    def _fail(self, error: ErrorInfo) -> None:
        self.ended = True
        self.error = error

    def _body(self) -> bytes:
        held = self._held
        message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None}
        message |= {field.decode(): text for field in FIELDS.values() if (text := self._text(field))}
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
        return "".join([_any.decode(piece.text) for _, _, piece in self._pieces if piece.field == field])

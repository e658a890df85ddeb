"""The key is shown nowhere, wherever and however a server sends it back."""

from __future__ import annotations

import base64
import json
import logging
import traceback
from contextlib import aclosing
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loom.model.errors import LoomError, Unavailable
from loom.producers.llm import Anthropic, OpenAICompatible
from loom.producers.llm.redact import Redactor

from .provider import Play, Provider, chunked, head, sized, until_close

KEY = "sk-Live/Secret+Key=0123456789"

FORMS = {
    "plain": KEY,
    "upper case": KEY.upper(),
    "escaped": quote(KEY, safe=""),
    "basic": base64.b64encode(f"user:{KEY}".encode()).decode(),
    "bearer": base64.urlsafe_b64encode(f"Bearer {KEY}".encode()).decode(),
    "cut off": KEY[:14] + "****",
    "the end": "..." + KEY[-10:],
}


def error(status: int = 400, **fields: Any) -> bytes:
    return sized(json.dumps({"error": {"message": "no", **fields}}).encode(), status)


def event(**fields: Any) -> bytes:
    return chunked(b"data: %b\n\n" % json.dumps({"type": "error", "error": {"message": "no", **fields}}).encode())


def plays(echo: str) -> dict[str, bytes]:
    raw = echo.encode()
    return {
        "message": error(message=f"bad key {echo}"),
        "message of a 401": error(401, message=f"bad key {echo}"),
        "message of a 500": error(500, message=f"bad key {echo}"),
        "code": error(code=f"bad_{echo}"),
        "type": error(type=f"bad_{echo}"),
        "param": error(422, param=echo),
        "param of a 404": error(404, param={"of": echo}, code=[echo]),
        "details": sized(json.dumps({"detail": [{"loc": [echo], "input": echo}]}).encode(), 422),
        "content type": sized(b"x", content_type=f"text/{echo}"),
        "content type of an error": sized(b"x", 500, content_type=f"text/{echo}"),
        "reason": b"HTTP/1.1 400 %b\r\ncontent-length: 0\r\n\r\n" % raw,
        "status line": b"HTTP/1.1 %b\r\n\r\n" % raw,
        "version": b"%b 200 OK\r\n\r\n" % raw,
        "header": sized(b"{}", 400, x_key=echo, retry_after=echo, www_authenticate=f"Bearer {echo}"),
        "no header": b"HTTP/1.1 200 OK\r\n%b\r\n\r\n" % raw,
        "length": b"HTTP/1.1 200 OK\r\ncontent-length: %b\r\n\r\n" % raw,
        "chunk size": head(transfer_encoding="chunked") + raw + b"\r\n",
        "encoding": head(content_encoding=echo) + raw,
        "page": sized(b"<p>%b" % raw, 502, content_type="text/html"),
        "text": sized(raw, content_type="text/plain"),
        "redirect": sized(b"", 302, location=f"https://elsewhere.example/?key={echo}"),
        "no JSON": sized(b'{"%b' % raw),
        "other JSON": sized(json.dumps({echo: echo}).encode()),
        "other types": sized(json.dumps({"choices": [{"index": echo}], "type": "message", "content": echo}).encode()),
        "event": event(message=echo, param=echo, code=echo, type=echo),
        "no event": until_close(b"data: {%b\n\n" % raw),
        "event type": until_close(b'event: error\ndata: {"%b": "%b"}\n\n' % (raw, raw)),
    }


@pytest.mark.anyio
@pytest.mark.parametrize("place", plays(KEY))
@pytest.mark.parametrize("wire", [OpenAICompatible, Anthropic])
async def test_a_key_that_is_sent_back_is_shown_nowhere(
    wire: Any, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    shown: list[str] = []
    async with Provider() as provider:
        for echo in FORMS.values():
            provider.play(Play(plays(echo)[place], cut=10_000))
            url = provider.url if wire is OpenAICompatible else provider.url.removesuffix("/v1")
            async with aclosing(wire(url, api_key=KEY, model="m", attempts=2, backoff=(0.001, 0.001))) as ai:
                for call in (lambda ai=ai: ai.complete("hi"), lambda ai=ai: ai.complete("hi", output=int), ai.check):
                    try:
                        shown.append(str(await call()))
                    except LoomError as fault:
                        shown += [*map(str, (fault.info, repr(fault), fault)), *traceback.format_exception(fault)]
    shown += [f"{record.getMessage()} {record.args}" for record in caplog.records]
    text = "\n".join(shown).lower()
    assert not [piece for form in FORMS.values() for piece in pieces(form) if piece in text], text


def pieces(form: str) -> set[str]:
    """Runs of the key's own characters: those of words around it are no secret."""
    own = "user:" if form == FORMS["basic"] else "Bearer " if form == FORMS["bearer"] else ""
    first = -(-len(own) * 8 // 6)
    form = form[first:].strip("=*.").lower()
    return {form[at : at + 9] for at in range(len(form) - 9)}


@given(
    key=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=8, max_size=60),
    around=st.tuples(st.text(), st.text()),
)
@settings(max_examples=50)
def test_any_key_in_any_text(key: str, around: tuple[str, str]) -> None:
    before, after = around
    redact = Redactor(key)
    assert key not in redact.text(f"{before}{key}{after}")
    assert redact.text(f"{before}|\n|{key}|\n|{after}").count("[key]") >= 1
    encoded = base64.b64encode(f"{before}:{key}".encode()).decode()
    left = redact.text(encoded)
    assert len(left) < len(encoded) or len(key) < 9


@given(text=st.text())
def test_other_text_stays_as_it_is(text: str) -> None:
    assert Redactor("sk-0123456789").text(text) == text


def test_a_placeholder_for_a_key_is_no_secret() -> None:
    assert Redactor("ollama").text("ollama says no") == "ollama says no"
    assert Redactor("ollama-key").text("ollama-key says no") == "[key] says no"
    assert Redactor("").text("") == ""


def test_everything_that_an_error_shows_is_cleaned() -> None:
    fault = Unavailable(f"no {KEY}", details={"field": KEY, KEY: [{"x": f"a{KEY}b"}], "status": 500})
    assert Redactor(KEY).error(fault) is fault
    assert str(fault) == fault.message == fault.info.message == "no [key]"
    assert fault.details == {"field": "[key]", "[key]": [{"x": "a[key]b"}], "status": 500}

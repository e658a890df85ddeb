"""INPUT on a command line to a run's input: JSON if it parses, else text; for a sole text parameter always text."""

from __future__ import annotations

from typing import Any, BinaryIO

from loom.model import limits
from loom.model.errors import InvalidInput, RemoteProtocolError, UsageError
from loom.model.run import ActorInfo
from loom.wire.json import check_size, decode

from .standard import INPUT, named

__all__ = ["check_once", "guessed", "read_input", "read_piped"]


def read_input(actor: ActorInfo | None, text: str | None, json: str | None, piped: str | None) -> Any:
    """The input that was given as INPUT, by ``--input``, or on standard input; without any, an object without fields.

    What is `piped` is text wherever the actor takes text. Raises `InvalidInput`.
    """
    if json is not None:
        try:
            return decode(json.encode(errors="surrogatepass"))
        except RemoteProtocolError as error:
            raise InvalidInput(f"--input: {error}", details={"field": "input"}) from None
    sole = _sole_parameter(actor)
    if piped is not None and sole is not None and "string" in _types(sole[1]):
        return {sole[0]: piped}
    if text is not None and sole is not None and _types(sole[1]) == {"string"}:
        return {sole[0]: text}
    given = text if piped is None else piped
    if given is None:
        return {}
    value = guessed(given)
    if isinstance(value, str) and given.lstrip()[:1] in ("{", "["):
        _complain(given)
    return value


def _complain(text: str) -> None:
    """Raise `InvalidInput` for what was meant as JSON, where text is not what the actor takes."""
    try:
        decode(text.encode(errors="surrogatepass"))
    except RemoteProtocolError as error:
        raise InvalidInput(f"looks like JSON, but: {error}", details={"field": "input"}) from None


def check_once(text: str | None, json: str | None, stdin: bool) -> None:
    """Raise `UsageError` when the input is given in more than one way."""
    if (text is not None) + (json is not None) + stdin > 1:
        raise UsageError("give the input once: as INPUT, as --input JSON, or - for standard input")


def read_piped(file: BinaryIO) -> str:
    """Standard input as text. Raises `InvalidInput` (not UTF-8), `LimitExceeded`, `OSError` that names it."""
    try:
        data = file.read(limits.INPUT_BYTES + 1)
    except OSError as error:
        raise named(error, INPUT) from None
    check_size(data, limits.INPUT_BYTES, "standard input, read so far:")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise InvalidInput(f"standard input: {error}", details={"field": "input"}) from None


def _sole_parameter(actor: ActorInfo | None) -> tuple[str, Any] | None:
    """The name and JSON Schema of an actor's only parameter; not the field of a model, whose schema bears a title."""
    schema = {} if actor is None else actor.input_schema
    properties = schema.get("properties", {})
    if "title" in schema or not isinstance(properties, dict) or len(properties) != 1:
        return None
    sole: tuple[str, Any] = next(iter(properties.items()))
    return sole


def _types(schema: Any) -> set[str]:
    """The JSON types that a schema names at its top; of a choice, all of them."""
    if not isinstance(schema, dict):
        return set()
    if isinstance(schema.get("type"), str):
        return {schema["type"]}
    if isinstance(schema.get("type"), list):
        return set(schema["type"])
    return set().union(*(_types(part) for part in schema.get("anyOf", ())))


def guessed(text: str) -> Any:
    """JSON if it parses, else the text."""
    try:
        return decode(text.encode(errors="surrogatepass"))
    except RemoteProtocolError:
        return text

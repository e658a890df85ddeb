"""How a run was started, as its rows keep it: the input apart, so that lists of runs leave it in the file."""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from loom.model.run import NO_INPUT, Meta
from loom.wire.json import encode

__all__ = ["join", "split"]

_meta = msgspec.json.Decoder(Meta)


def split(meta: Meta) -> tuple[bytes, bytes]:
    """What the columns `meta` and `input` hold."""
    return encode(replace(meta, input=NO_INPUT)), bytes(meta.input)


def join(meta: bytes, input: bytes | None) -> Meta:
    """What `split` took apart; without an input that of a run that has none."""
    rest = _meta.decode(meta)
    return rest if input is None else replace(rest, input=msgspec.Raw(input))

"""Text from elsewhere, made safe for a terminal."""

from __future__ import annotations

from loom.model.text import BIDI_CONTROLS

__all__ = ["clean"]

_PICTURES = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\n\t"}
_LINE_ENDS = dict.fromkeys((0x2028, 0x2029), "\n")
_STEERING = dict.fromkeys((*range(0x80, 0xA0), *map(ord, BIDI_CONTROLS)), 0xFFFD)
_VISIBLE: dict[int, int | str] = {**_PICTURES, 0x7F: 0x2421, **_STEERING, **_LINE_ENDS}


def clean(text: str) -> str:
    """`text` that cannot steer a terminal: control characters are shown as pictures, bidirectional ones as U+FFFD,
    line ends become LF."""
    if text.isprintable():
        return text
    return text.replace("\r\n", "\n").replace("\r", "\n").translate(_VISIBLE)

"""Text from elsewhere, made safe for a terminal."""

from __future__ import annotations

__all__ = ["clean"]

_PICTURES = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\n\t"}
_VISIBLE = {**_PICTURES, 0x7F: 0x2421, **dict.fromkeys(range(0x80, 0xA0), 0xFFFD)}


def clean(text: str) -> str:
    """`text` that cannot steer a terminal: control characters are shown as pictures, line ends become LF."""
    if text.isprintable():
        return text
    return text.replace("\r\n", "\n").replace("\r", "\n").translate(_VISIBLE)

"""How it looks on a line: bytes to values and back. Pure; no async, no I/O."""

"""Requests with framing tricks, sent through a recording proxy, and judged by a strict reader of their bytes."""

"""Clients of a Loom server: a transport whose runs live behind HTTP. Knows the wire, and nothing of stores."""

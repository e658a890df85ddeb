"""Event streams: frames, and who reads them. The hot path."""

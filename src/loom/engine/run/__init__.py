"""Driving runs: a worker claims it, a runner tries it, a writer writes its log."""

"""What makes it run: the writer, the hub, the runner, the worker and the client. Knows the ports, no store."""

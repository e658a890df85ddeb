"""Real Redis and Valkey servers for tests: on free ports, in a folder of their own, gone with the test process."""

"""The connection to Redis: addresses, servers, topologies, subscriptions. Knows no log."""

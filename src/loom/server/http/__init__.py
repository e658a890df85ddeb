"""HTTP itself: connections, requests within bounds, answers, security. Knows no run."""

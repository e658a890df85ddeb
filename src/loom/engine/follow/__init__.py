"""What follows and controls runs: the client, its handles, and what all readers of a log share."""

"""Following and controlling runs: the client, its handles, and the hub that all readers of a log share."""

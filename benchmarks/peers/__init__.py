"""The peers: each the same five event streams, as its own documentation would have a user write them."""

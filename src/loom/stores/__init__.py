"""Where runs rest: members of one shape, each the `Store` port of `loom.model.ports`. They never import each other."""
